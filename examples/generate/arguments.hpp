// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the command lines of the examples share: how values are read, and where the model is.

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace generate {

/// Wrong arguments; the program ends with code 2.
struct usage_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

namespace detail {

template <class T>
T number(std::string_view option, std::string_view text, T low, T high) {
    T value{};
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value >= low && value <= high)) {
        auto const shown = [](T v) {
            std::string s = std::to_string(v);
            if (s.find('.') != std::string::npos) s.erase(s.find_last_not_of('0') + 1);
            if (s.back() == '.') s.pop_back();
            return s;
        };
        throw usage_error{std::string{option} + " is '" + std::string{text} + "', expected a number from " + shown(low) +
                          " to " + shown(high)};
    }
    return value;
}

template <class T, std::size_t N>
T one_of(std::string_view option, std::string_view text, std::pair<std::string_view, T> const (&choices)[N]) {
    std::string names;
    for (auto const& [name, value] : choices) {
        if (name == text) return value;
        names += (names.empty() ? "" : ", ") + std::string{name};
    }
    throw usage_error{std::string{option} + " is '" + std::string{text} + "', expected one of " + names};
}

} // namespace detail

/// Where the model is kept when nobody says otherwise.
inline std::string default_model_path() {
    auto const variable = [](char const* name) {
        char const* const value = std::getenv(name);
        return std::string{value == nullptr ? "" : value};
    };
    std::string folder = variable("XDG_CACHE_HOME");
    if (folder.empty()) folder = (variable("HOME").empty() ? "/tmp" : variable("HOME")) + "/.cache";
    return folder + "/tessera/SmolLM2-135M-Instruct.Q4_1.gguf";
}

} // namespace generate
