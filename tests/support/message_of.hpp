// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What an error says.

#include <exception>
#include <string>

namespace tessera_test {

/// The sentence of the error that f throws.
template <class F>
std::string message_of(F const& f) {
    try {
        f();
    } catch (std::exception const& e) {
        return e.what();
    }
    return "nothing was thrown";
}

} // namespace tessera_test
