// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The std::thread backend of `parallel_for`: for programs without OpenMP, and for the thread sanitizer, which
/// understands it (libgomp gives false reports).

#include "parallel.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Owns worker threads that sleep between calls. The calling thread works too, as worker 0.
class thread_pool {
public:
    /// @param threads workers including the caller; 0 takes the hardware's number.
    explicit thread_pool(int threads = 0) {
        int const hardware = static_cast<int>(std::thread::hardware_concurrency());
        int const wanted = threads > 0 ? threads : (hardware > 0 ? hardware : 1);
        workers_.reserve(static_cast<std::size_t>(wanted - 1));
        for (index_t w = 1; w < wanted; ++w) workers_.emplace_back([this, w] { work(w); });
    }
    thread_pool(thread_pool const&) = delete;
    thread_pool& operator=(thread_pool const&) = delete;
    ~thread_pool() {
        {
            std::lock_guard const lock{mutex_};
            stopping_ = true;
        }
        wake_.notify_all();
        for (std::thread& t : workers_) t.join();
    }

    index_t concurrency() const noexcept { return static_cast<index_t>(workers_.size()) + 1; }

    /// Runs f(chunk, worker) for every chunk; one caller at a time, and a call from inside a chunk runs serially.
    template <class F>
    void run(index_t chunks, F const& f) noexcept {
        if (workers_.empty() || chunks <= 1 || inside()) return serial{}.run(chunks, f);
        std::lock_guard const one_caller{call_mutex_};
        {
            std::lock_guard const lock{mutex_};
            call_ = [](void const* function, index_t chunk, index_t worker) noexcept {
                (*static_cast<F const*>(function))(chunk, worker);
            };
            function_ = &f;
            chunks_ = chunks;
            next_.store(0, std::memory_order_relaxed);
            busy_ = static_cast<index_t>(workers_.size());
            ++generation_;
        }
        wake_.notify_all();
        drain(0);
        std::unique_lock lock{mutex_};
        done_.wait(lock, [this] { return busy_ == 0; });
    }

private:
    using call_type = void (*)(void const*, index_t, index_t) noexcept;

    static bool& inside() noexcept {
        thread_local bool value = false;
        return value;
    }

    void drain(index_t worker) noexcept {
        inside() = true;
        for (index_t c = next_.fetch_add(1, std::memory_order_relaxed); c < chunks_;
             c = next_.fetch_add(1, std::memory_order_relaxed))
            call_(function_, c, worker);
        inside() = false;
    }

    void work(index_t worker) noexcept {
        index_t seen = 0;
        for (;;) {
            {
                std::unique_lock lock{mutex_};
                wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
                if (stopping_) return;
                seen = generation_;
            }
            drain(worker);
            std::lock_guard const lock{mutex_};
            if (--busy_ == 0) done_.notify_one();
        }
    }

    std::vector<std::thread> workers_;
    std::mutex call_mutex_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable done_;
    std::atomic<index_t> next_{0};
    call_type call_ = nullptr;
    void const* function_ = nullptr;
    index_t chunks_ = 0;
    index_t busy_ = 0;
    index_t generation_ = 0;
    bool stopping_ = false;
};

/// The backend that a policy holds: a reference to a pool.
class threads {
public:
    explicit threads(thread_pool& pool) noexcept : pool_{&pool} {}
    index_t concurrency() const noexcept { return pool_->concurrency(); }
    template <class F>
    void run(index_t chunks, F const& f) const noexcept {
        pool_->run(chunks, f);
    }

private:
    thread_pool* pool_;
};

} // namespace tessera::inline TESSERA_ABI
