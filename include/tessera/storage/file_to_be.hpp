// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Files that are written beside their final name and renamed when they are whole: whoever opens the name sees the old file or
/// the new one, bytes of the old one that are mapped stay readable, and a full disk leaves nothing behind. A process that is
/// killed while it writes leaves `NAME.<process>.<number>.tmp`.

#include "mapped_file.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

namespace tessera::inline TESSERA_ABI::detail {

/// Something has this name, be it a file or not.
inline bool file_exists(std::string const& path) noexcept {
#if defined(__unix__) || defined(__APPLE__)
    struct ::stat status {};
    return ::stat(path.c_str(), &status) == 0 || errno != ENOENT;
#else
    std::FILE* const f = std::fopen(path.c_str(), "rb");
    if (f != nullptr) std::fclose(f);
    return f != nullptr || errno != ENOENT;
#endif
}

/// A new file beside `path`, which takes its place when all is written. A symbolic link stays one, its target is replaced; what
/// is there and no regular file (a pipe, a device) is written to. Errors name `label`, by default the path.
class file_to_be {
public:
    explicit file_to_be(std::string const& path, std::string label = {})
        : path_{path}, label_{label.empty() ? path : std::move(label)} {
#if defined(__unix__) || defined(__APPLE__)
        struct ::stat status {};
        bool const exists = ::stat(path.c_str(), &status) == 0;
        if (exists && !S_ISREG(status.st_mode)) {
            out_ = std::fopen(path.c_str(), "wb");
        } else {
            if (exists)
                if (char* const target = ::realpath(path.c_str(), nullptr); target != nullptr) {
                    path_ = target;
                    std::free(target);
                }
            open_temporary();
        }
#else
        temporary_ = path_ + ".tmp";
        out_ = std::fopen(temporary_.c_str(), "wb");
#endif
        if (out_ == nullptr) raise_file(label_, "cannot write", errno);
        std::setvbuf(out_, nullptr, _IOFBF, std::size_t{1} << 20);
    }
    file_to_be(file_to_be const&) = delete;
    file_to_be& operator=(file_to_be const&) = delete;
    ~file_to_be() {
        if (out_ != nullptr) std::fclose(out_);
        if (!temporary_.empty()) std::remove(temporary_.c_str());
    }
    void add(void const* data, std::size_t bytes) {
        if (bytes != 0 && std::fwrite(data, 1, bytes, out_) != bytes) raise_file(label_, "cannot write", errno);
    }
    void finish() {
        if (std::fclose(std::exchange(out_, nullptr)) != 0) raise_file(label_, "cannot write", errno);
        if (temporary_.empty()) return;
#if defined(_WIN32)
        std::remove(path_.c_str()); // rename does not replace there
#endif
        if (std::rename(temporary_.c_str(), path_.c_str()) != 0) raise_file(label_, "cannot be replaced", errno);
        temporary_.clear();
    }

private:
#if defined(__unix__) || defined(__APPLE__)
    /// A name of its own for every process and attempt.
    void open_temporary() {
        for (int i = 0; i < 100 && out_ == nullptr; ++i) {
            temporary_ = path_ + "." + std::to_string(::getpid()) + "." + std::to_string(i) + ".tmp";
            int const f = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            if (f < 0) temporary_.clear();
            if (f < 0 && errno != EEXIST) return;
            if (f >= 0 && (out_ = ::fdopen(f, "wb")) == nullptr) ::close(f);
        }
    }
#endif

    std::string path_;
    std::string label_;
    std::string temporary_;
    std::FILE* out_ = nullptr;
};

} // namespace tessera::inline TESSERA_ABI::detail
