#include "cutaway.h"

#include <cstring>
#include <exception>

#include "runner.h"

using cutaway::Runner;

namespace {

void say(const char* what, char* error, int64_t size) {
    if (error == nullptr || size <= 0) return;
    std::strncpy(error, what, static_cast<size_t>(size) - 1);
    error[size - 1] = '\0';
}

// No exception leaves the library.
template <typename Work>
int32_t tried(Work work, char* error, int64_t size) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        say("there is not enough memory", error, size);
        return 2;
    } catch (const std::exception& failed) {
        say(failed.what(), error, size);
    }
    return 1;
}

Runner* of(void* runner) { return static_cast<Runner*>(runner); }

}  // namespace

int32_t ctw_version() { return CTW_VERSION; }

void* ctw_runner(const ctw_plan* plan, char* error, int64_t size) {
    Runner* made = nullptr;
    tried([&] { made = new Runner(*plan); }, error, size);
    return made;
}

void ctw_end(void* runner) { delete of(runner); }

int64_t ctw_page_tokens() { return cutaway::kPage; }

int64_t ctw_page_bytes(const void* runner) {
    return static_cast<int64_t>(const_cast<Runner*>(static_cast<const Runner*>(runner))->pages().page_bytes());
}

int32_t ctw_table(void* runner, int32_t table, const float* numbers, int64_t rows, int64_t width, char* error,
                  int64_t size) {
    return tried([&] { of(runner)->set_table(table, numbers, rows, width); }, error, size);
}

int32_t ctw_reserve(void* runner, int64_t pages, char* error, int64_t size) {
    return tried([&] { of(runner)->pages().reserve(pages); }, error, size);
}

int32_t ctw_copy(void* runner, int64_t source, int64_t target, char* error, int64_t size) {
    return tried([&] { of(runner)->pages().copy(source, target); }, error, size);
}

int32_t ctw_step(void* runner, const ctw_batch* batch, char* error, int64_t size) {
    return tried([&] { of(runner)->step(*batch); }, error, size);
}

int32_t ctw_adapter(void* runner, int32_t number, const ctw_part* part, int64_t parts, char* error, int64_t size) {
    return tried([&] { of(runner)->set_adapter(number, part, parts); }, error, size);
}

int32_t ctw_step_adapted(void* runner, const ctw_batch* batch, const int32_t* adapter, char* error, int64_t size) {
    return tried([&] { of(runner)->step(*batch, adapter); }, error, size);
}

void ctw_times(void* runner, int64_t* nanoseconds, int32_t measure) { of(runner)->times(nanoseconds, measure != 0); }
