// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The bytes of a file, mapped read-only (`file_access::map`) or copied into memory (`file_access::read`).
///
/// Mapping costs nothing up front, and the pages are shared between processes and can be dropped by the kernel. The
/// price: a file that another process truncates while it is mapped raises SIGBUS on the next access beyond its new end.
/// Where that can happen (a network file system, a download that restarts), copy with `file_access::read`.
///
/// Without POSIX `map` copies too. That path is written for Windows and untested.

#include "../core/config.hpp"
#include "../core/error.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace tessera::inline TESSERA_ABI {

/// How the pages of a file will be read.
enum class file_access {
    map, ///< memory-map, read-only
    read ///< copy into memory
};

/// Owns the bytes of one file; moves, does not copy. An empty file has an empty span.
class mapped_file {
public:
    mapped_file() noexcept = default;

    /// @throws format_error naming the file and the system's reason when it cannot be opened or read, or is not a
    /// regular file.
    explicit mapped_file(std::string const& path, file_access access = file_access::map);

    mapped_file(mapped_file&& other) noexcept
        : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)}, access_{other.access_} {}

    mapped_file& operator=(mapped_file&& other) noexcept {
        if (this != &other) {
            release();
            data_ = std::exchange(other.data_, nullptr);
            size_ = std::exchange(other.size_, 0);
            access_ = other.access_;
        }
        return *this;
    }

    ~mapped_file() { release(); }

    /// At least `config::cache_line` bytes aligned.
    std::span<std::byte const> bytes() const noexcept { return {static_cast<std::byte const*>(data_), size_}; }

    /// Lets the system take back the memory of some of the bytes; they are read from the file again when they are looked at.
    void forget(std::span<std::byte const> part) const noexcept;

    /// How the bytes are held.
    file_access access() const noexcept { return access_; }

private:
    static constexpr std::align_val_t alignment{config::cache_line};

    void release() noexcept;

    void* data_ = nullptr;
    std::size_t size_ = 0;
    file_access access_ = file_access::read;
};

/// A copy of the file: `mapped_file{path, file_access::read}`.
inline mapped_file read_file(std::string const& path) { return mapped_file{path, file_access::read}; }

namespace detail {

[[noreturn]] TESSERA_COLD inline void raise_file(std::string const& path, char const* what, int error) {
    raise<format_error>("tessera: " + path + ": " + what +
                        (error == 0 ? std::string{} : ": " + std::generic_category().message(error)));
}

} // namespace detail

#if defined(__unix__) || defined(__APPLE__)

namespace detail {

/// A file descriptor that closes itself.
struct open_descriptor {
    // Not blocking, or a pipe would be waited for before it is refused.
    explicit open_descriptor(std::string const& path) : value{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)} {
        if (value < 0) raise_file(path, "cannot open", errno);
    }
    open_descriptor(open_descriptor const&) = delete;
    open_descriptor& operator=(open_descriptor const&) = delete;
    ~open_descriptor() { ::close(value); }
    int value;
};

} // namespace detail

inline mapped_file::mapped_file(std::string const& path, file_access access) : access_{access} {
    detail::open_descriptor const file{path};
    struct ::stat status {};
    if (::fstat(file.value, &status) != 0) detail::raise_file(path, "cannot stat", errno);
    if (!S_ISREG(status.st_mode)) detail::raise_file(path, "is not a regular file", 0);
    auto const size = static_cast<std::size_t>(status.st_size);
    if (size == 0) return;
    if (access == file_access::map) {
        void* const p = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
        if (p == MAP_FAILED) detail::raise_file(path, "cannot map", errno);
        data_ = p;
        size_ = size;
        return;
    }
    mapped_file owner;
    owner.data_ = ::operator new(size, alignment);
    while (owner.size_ < size) {
        auto const n = ::read(file.value, static_cast<std::byte*>(owner.data_) + owner.size_, size - owner.size_);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) detail::raise_file(path, "cannot read", errno);
        if (n == 0) detail::raise_file(path, "became shorter while it was read", 0);
        owner.size_ += static_cast<std::size_t>(n);
    }
    *this = std::move(owner);
}

#else

inline mapped_file::mapped_file(std::string const& path, file_access) : access_{file_access::read} {
    struct stream {
        std::FILE* value;
        ~stream() {
            if (value != nullptr) std::fclose(value);
        }
    } const file{std::fopen(path.c_str(), "rb")};
    if (file.value == nullptr) detail::raise_file(path, "cannot open", errno);
#if defined(_WIN32)
    ::_fseeki64(file.value, 0, SEEK_END);
    auto const size = ::_ftelli64(file.value);
    ::_fseeki64(file.value, 0, SEEK_SET);
#else
    std::fseek(file.value, 0, SEEK_END);
    auto const size = std::ftell(file.value);
    std::fseek(file.value, 0, SEEK_SET);
#endif
    if (size < 0) detail::raise_file(path, "cannot find its size", errno);
    if (size == 0) return;
    mapped_file owner;
    owner.size_ = static_cast<std::size_t>(size);
    owner.data_ = ::operator new(owner.size_, alignment);
    if (std::fread(owner.data_, 1, owner.size_, file.value) != owner.size_) detail::raise_file(path, "cannot read", errno);
    *this = std::move(owner);
}

#endif

inline void mapped_file::forget(std::span<std::byte const> part) const noexcept {
#if defined(__linux__)
    if (access_ != file_access::map || part.empty()) return;
    // Whole pages inside the part: its ends may belong to others.
    auto const page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    auto const first = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
    auto const last = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
    if (first < last) static_cast<void>(::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED));
#else
    static_cast<void>(part);
#endif
}

inline void mapped_file::release() noexcept {
    if (data_ == nullptr) return;
#if defined(__unix__) || defined(__APPLE__)
    if (access_ == file_access::map) {
        ::munmap(data_, size_);
        return;
    }
#endif
    ::operator delete(data_, alignment);
}

} // namespace tessera::inline TESSERA_ABI
