#include "threads.h"

#include <chrono>
#include <stdexcept>
#include <utility>

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

constexpr int kLooks = 1000;      // before sleeping, within a step
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
// be destroyed here. Nor are they detached: a new thread may have been given the name of one of them.
void Threads::leave_behind() {
    if (!workers_.empty()) (void)new std::vector<std::thread>(std::move(workers_));
    workers_.clear();
    (void)sleep_.release();
}

void Threads::start() {
    if (process_ == process()) return;
    leave_behind();
    sleep_ = std::make_unique<Sleep>();
    process_ = process();
    came_ = 0;
    asleep_ = 0;
    leave_ = false;
    const uint64_t seen = call_.load();
    try {
        for (int part = 1; part < parts_; ++part) workers_.emplace_back([this, part, seen] { serve(part, seen); });
    } catch (...) {  // no more threads to be had; the next call may try again
        stop();
        process_ = -1;
        throw std::runtime_error("the system gives this process no more threads; ask for fewer");
    }
}

void Threads::stop() {
    if (process_ != process()) return leave_behind();
    {
        std::lock_guard<std::mutex> hold(sleep_->lock);
        leave_ = true;
    }
    sleep_->wake.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
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
        // In one order with `asleep_`: who does not see this is seen below. Not a store, which an emulated ARM lets the
        // load pass: QEMU puts no barrier between a releasing store and an acquiring load.
        meeting_.fetch_add(1);
        if (asleep_.load() != 0) {
            { std::lock_guard<std::mutex> hold(sleep_->lock); }
            sleep_->met.notify_all();
        }
        return;
    }
    for (int look = 0; look < kLooks; ++look) {
        if (meeting_.load(std::memory_order_acquire) != now) return;
        pause();
    }
    std::unique_lock<std::mutex> hold(sleep_->lock);
    asleep_.fetch_add(1);
    sleep_->met.wait(hold, [&] { return meeting_.load() != now; });
    asleep_.fetch_sub(1);
}

}  // namespace cutaway
