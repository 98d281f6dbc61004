#include "threads.h"

#include <chrono>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace cutaway {

namespace {

constexpr int kLooks = 400;       // before giving way, within a step
// Between steps, before sleeping: one follows another when text is generated, and to wake up takes long.
constexpr std::chrono::microseconds kAwake{300};

int64_t process() {
#if defined(_WIN32)
    return _getpid();
#else
    return getpid();
#endif
}

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ __volatile__("yield");
#endif
}

}  // namespace

// Threads stayed in the process that this one was forked from; what they sleep on still counts them, and may not even
// be destroyed here.
void Threads::leave_behind() {
    for (auto& worker : workers_) worker.detach();
    workers_.clear();
    (void)sleep_.release();
}

void Threads::start() {
    if (process_ == process()) return;
    leave_behind();
    sleep_ = std::make_unique<Sleep>();
    process_ = process();
    came_ = 0;
    const uint64_t seen = call_.load();
    for (int part = 1; part < parts_; ++part) workers_.emplace_back([this, part, seen] { serve(part, seen); });
}

void Threads::stop() {
    if (process_ != process()) return leave_behind();
    {
        std::lock_guard<std::mutex> hold(sleep_->lock);
        leave_ = true;
    }
    sleep_->wake.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Threads::run(const std::function<void(int)>& work) {
    if (parts_ > 1) {
        start();
        {
            std::lock_guard<std::mutex> hold(sleep_->lock);
            work_ = &work;
            call_.fetch_add(1, std::memory_order_release);
        }
        sleep_->wake.notify_all();
    }
    counter_.store(0, std::memory_order_relaxed);
    work(0);
    meet();
}

void Threads::serve(int part, uint64_t seen) {
    Sleep& sleep = *sleep_;
    for (;;) {
        const auto until = std::chrono::steady_clock::now() + kAwake;
        while (call_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < until)
            for (int look = 0; look < 50 && call_.load(std::memory_order_acquire) == seen; ++look) pause();
        const std::function<void(int)>* work;
        {
            std::unique_lock<std::mutex> hold(sleep.lock);
            sleep.wake.wait(hold, [&] { return leave_ || call_.load(std::memory_order_relaxed) != seen; });
            if (leave_) return;
            seen = call_.load(std::memory_order_relaxed);
            work = work_;
        }
        (*work)(part);
        meet();
    }
}

void Threads::meet() {
    if (parts_ == 1) {
        counter_.store(0, std::memory_order_relaxed);
        return;
    }
    const uint64_t now = meeting_.load(std::memory_order_acquire);
    if (came_.fetch_add(1, std::memory_order_acq_rel) + 1 == parts_) {
        came_.store(0, std::memory_order_relaxed);
        counter_.store(0, std::memory_order_relaxed);
        meeting_.store(now + 1, std::memory_order_release);
        return;
    }
    for (int look = 0; meeting_.load(std::memory_order_acquire) == now; ++look) {
        if (look < kLooks)
            pause();
        else
            std::this_thread::yield();
    }
}

}  // namespace cutaway
