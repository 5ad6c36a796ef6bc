// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A thread for somebody else's code. Some libraries keep state a thread: ggml configures the tile registers of AMX once
/// a thread and never again, OpenMP's settings and workers belong to the thread that starts a region. What runs here, and
/// on the workers it starts, shares none of that with the kernels of ours, which run on the main thread.

#include "roofline.hpp"

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

namespace bench {

class own_thread {
public:
    /// For one thread it stays on the first processor, where the kernels of ours run too; else it may use all, and the
    /// workers that it starts inherit that.
    explicit own_thread(int threads)
        : thread_{[this, threads] {
              run_on(threads > 1 ? allowed_processors() : std::vector<int>{allowed_processors().front()});
              work();
          }} {}
    ~own_thread() {
        give({});
        thread_.join();
    }
    own_thread(own_thread const&) = delete;
    own_thread& operator=(own_thread const&) = delete;

    /// f() on this thread; waits for its result, and throws what it throws.
    template <class F>
    auto run(F&& f) -> decltype(f()) {
        std::packaged_task<decltype(f())()> task{std::forward<F>(f)};
        auto result = task.get_future();
        give(std::packaged_task<void()>{[&task] { task(); }});
        return result.get();
    }

private:
    /// An empty task ends the thread.
    void give(std::packaged_task<void()> task) {
        {
            std::lock_guard const lock{mutex_};
            next_ = std::move(task);
            waiting_ = true;
        }
        changed_.notify_one();
    }

    void work() {
        for (;;) {
            std::unique_lock lock{mutex_};
            changed_.wait(lock, [this] { return waiting_; });
            waiting_ = false;
            auto task = std::move(next_);
            lock.unlock();
            if (!task.valid()) return;
            task();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::packaged_task<void()> next_;
    bool waiting_ = false;
    std::thread thread_; // last: the others exist when it starts
};

} // namespace bench
