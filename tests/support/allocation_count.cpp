// SPDX-License-Identifier: MIT
// The whole program counts; only differences are looked at.
#include "allocation_count.hpp"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

// Sanitizers have a malloc of their own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REPLACES_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define REPLACES_MALLOC 0
#endif
#endif
// clang's OpenMP runtime allocates for every parallel region: there, operator new alone is counted.
#if !defined(REPLACES_MALLOC) && defined(__clang__) && defined(_OPENMP)
#define REPLACES_MALLOC 0
#endif
#if !defined(REPLACES_MALLOC) && defined(__GLIBC__)
#define REPLACES_MALLOC 1
#endif

namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
    ++allocations;
    std::size_t const size = (bytes + alignment - 1) / alignment * alignment;
    void* const p = std::aligned_alloc(alignment, size == 0 ? alignment : size);
    if (p == nullptr) throw std::bad_alloc{};
    return p;
}

} // namespace

long tessera_test::allocation_count() noexcept { return allocations; }

// Not inlined: g++ would take new and free for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes, 16); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return counted(bytes, 16); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<std::size_t>(a)); }
[[gnu::noinline]] void* operator new[](std::size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<std::size_t>(a)); }
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#if REPLACES_MALLOC
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) noexcept { return ++allocations, __libc_malloc(bytes); }
void* calloc(std::size_t n, std::size_t bytes) noexcept { return ++allocations, __libc_calloc(n, bytes); }
void* realloc(void* p, std::size_t bytes) noexcept { return ++allocations, __libc_realloc(p, bytes); }
void* memalign(std::size_t alignment, std::size_t bytes) noexcept { return ++allocations, __libc_memalign(alignment, bytes); }
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
    return ++allocations, __libc_memalign(alignment, bytes);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t bytes) noexcept {
    ++allocations;
    void* const p = __libc_memalign(alignment, bytes);
    if (p == nullptr) return ENOMEM;
    *result = p;
    return 0;
}
}
#endif
