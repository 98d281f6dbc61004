// Threads that compute the parts of a step together. Between steps they sleep; within a step they wait for each other
// by looking, and soon sleep too: the one that is waited for may need this very processor.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace cutaway {

class Threads {
public:
    explicit Threads(int parts) : parts_(parts < 1 ? 1 : parts) {}
    ~Threads() { stop(); }
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    int parts() const { return parts_; }

    // Calls work(part), which throws nothing, for every part, the caller's own thread being part 0, and returns when all
    // are done. Threads are made by the first call in a process: those of a process that forked are not the child's.
    void run(const std::function<void(int)>& work);

    // Waits until every part has come here; the last one resets `counter` before the others go on.
    void meet();
    // The next number that no part has taken since the last meeting.
    int64_t take() { return counter_.fetch_add(1, std::memory_order_relaxed); }

private:
    void start();
    void stop();
    void serve(int part, uint64_t seen);

    struct Sleep {
        std::mutex lock;
        std::condition_variable wake, met;  // for the next call; for the others within one
    };
    void leave_behind();

    const int parts_;
    int64_t process_ = -1;  // whose threads these are
    std::vector<std::thread> workers_;
    std::unique_ptr<Sleep> sleep_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<uint64_t> call_{0};
    bool leave_ = false;
    alignas(64) std::atomic<int64_t> counter_{0};
    alignas(64) std::atomic<int> came_{0};
    alignas(64) std::atomic<uint64_t> meeting_{0};
    std::atomic<int> asleep_{0};  // within a step
};

}  // namespace cutaway
