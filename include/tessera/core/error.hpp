// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Errors at the door (contract 3). Every public call checks shapes, nulls and aliasing before it writes anything and
/// throws one of these; the sentence names the operation, the argument and both numbers:
///
///     tessera: apply: columns of x is 5, expected 8 (columns of the operator)
///
/// Without exceptions the same sentence goes to a replaceable handler that must not return.

#include "macros.hpp"
#include "types.hpp"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// An argument has the wrong shape, is null, or overlaps another one.
struct shape_error : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

/// A combination that this build does not contain (a format that no translation unit registered, say).
struct unsupported_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Foreign bytes (a file) that break their format's rules; names file, field and offset.
struct format_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A CUDA call failed.
struct cuda_error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What an error becomes under -fno-exceptions. It must not return; the default aborts.
using error_handler = void (*)(char const* message);

namespace detail {

inline error_handler& current_error_handler() noexcept {
    static error_handler handler = nullptr;
    return handler;
}

/// Throws Error{message}, or calls the handler where exceptions are off.
template <class Error>
[[noreturn]] TESSERA_COLD void raise(std::string const& message) {
#if TESSERA_EXCEPTIONS
    throw Error{message};
#else
    if (current_error_handler() != nullptr) current_error_handler()(message.c_str());
    std::abort();
#endif
}

[[noreturn]] TESSERA_COLD inline void raise_unequal(char const* operation, char const* argument, index_t actual,
                                                    index_t expected, char const* why) {
    raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " is " + std::to_string(actual) +
                       ", expected " + std::to_string(expected) + " (" + why + ")");
}

[[noreturn]] TESSERA_COLD inline void raise_overlap(char const* operation, char const* input, index_t input_bytes,
                                                    char const* output, index_t output_bytes) {
    raise<shape_error>("tessera: " + std::string{operation} + ": " + input + " (" + std::to_string(input_bytes) +
                       " bytes) overlaps " + output + " (" + std::to_string(output_bytes) + " bytes)");
}

} // namespace detail

/// Replaces the handler called under -fno-exceptions; returns the previous one (null: abort).
inline error_handler set_error_handler(error_handler handler) noexcept {
    error_handler const previous = detail::current_error_handler();
    detail::current_error_handler() = handler;
    return previous;
}

/// The checks of public calls. Each throws shape_error with a full sentence and does nothing otherwise.
namespace check {

/// `actual` (what `argument` has) must equal `expected` (what `why` says).
inline void equal(char const* operation, char const* argument, index_t actual, index_t expected, char const* why) {
    if (actual != expected) detail::raise_unequal(operation, argument, actual, expected, why);
}

/// `actual` must lie in [low, high].
inline void within(char const* operation, char const* argument, index_t actual, index_t low, index_t high) {
    if (actual < low || actual > high)
        detail::raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " is " +
                                   std::to_string(actual) + ", expected " + std::to_string(low) + " to " +
                                   std::to_string(high));
}

/// `actual` must be `low` or more.
inline void at_least(char const* operation, char const* argument, index_t actual, index_t low) {
    if (actual < low)
        detail::raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " is " +
                                   std::to_string(actual) + ", expected at least " + std::to_string(low));
}

/// `actual` must be a multiple of `unit`.
inline void multiple(char const* operation, char const* argument, index_t actual, index_t unit) {
    if (actual % unit != 0)
        detail::raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " is " +
                                   std::to_string(actual) + ", expected a multiple of " + std::to_string(unit));
}

/// A pointer may be null only where `elements` is 0.
inline void not_null(char const* operation, char const* argument, void const* pointer, index_t elements) {
    if (pointer == nullptr && elements != 0)
        detail::raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " is null but has " +
                                   std::to_string(elements) + " elements, expected 0 or a pointer");
}

} // namespace check

} // namespace tessera::inline TESSERA_ABI
