// SPDX-License-Identifier: MIT
// What the library is under -fno-exceptions: another inline namespace, and errors to the handler. The compiler's macros are
// taken away before the library is included, so that this program can leave the handler by an exception of its own.
#include <doctest/doctest.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wbuiltin-macro-redefined"
#endif
#undef __cpp_exceptions
#undef __EXCEPTIONS

#include <tessera/core/error.hpp>

static_assert(TESSERA_EXCEPTIONS == 0);
static_assert(std::is_same_v<tessera::shape_error, tessera::v0_noexcept::shape_error>);

namespace {

struct left_handler {
    std::string message;
};

} // namespace

TEST_CASE("without exceptions the sentence goes to the handler") {
    tessera::set_error_handler([](char const* message) { throw left_handler{message}; });
    std::string message;
    try {
        tessera::check::equal("apply", "columns of x", 5, 8, "columns of the operator");
    } catch (left_handler const& h) {
        message = h.message;
    }
    CHECK(message == "tessera: apply: columns of x is 5, expected 8 (columns of the operator)");
    tessera::set_error_handler(nullptr);
}
