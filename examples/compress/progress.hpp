// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Progress on standard error: a bar on a terminal, a line a row elsewhere.

#include "../generate/report.hpp"

#include <algorithm>
#include <cstdio>
#include <string>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace compress {

class progress {
public:
    explicit progress(std::size_t rows) : rows_{rows} {
#if defined(__unix__) || defined(__APPLE__)
        is_terminal_ = ::isatty(STDERR_FILENO) != 0;
#endif
    }
    ~progress() { clear(); }
    progress(progress const&) = delete;
    progress& operator=(progress const&) = delete;

    void expect(std::size_t rows) { rows_ = rows; }
    void begin(std::string const& name) {
        name_ = name;
        watch_ = generate::stopwatch{};
        show(0);
    }
    void show(double share) {
        if (!is_terminal_) return;
        constexpr int width = 30;
        double const whole = (static_cast<double>(done_) + share) / static_cast<double>(rows_);
        int const full = std::clamp(static_cast<int>(whole * width), 0, width);
        std::string bar(width, '-');
        for (int i = 0; i < full; ++i) bar[static_cast<std::size_t>(i)] = '#';
        std::fprintf(stderr, "\r\033[K[%s] %zu of %zu  %s", bar.c_str(), std::min(done_ + 1, rows_), rows_, name_.c_str());
        std::fflush(stderr);
    }
    void end(std::string const& what) {
        ++done_;
        if (is_terminal_) return;
        std::fprintf(stderr, "%zu of %zu  %s: %s, %.1f s\n", done_, rows_, name_.c_str(), what.c_str(), watch_.seconds());
    }

private:
    void clear() const {
        if (is_terminal_) std::fputs("\r\033[K", stderr);
    }
    std::size_t rows_;
    std::size_t done_ = 0;
    std::string name_;
    generate::stopwatch watch_;
    bool is_terminal_ = false;
};

} // namespace compress
