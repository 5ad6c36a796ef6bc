// SPDX-License-Identifier: MIT
#include "support/message_of.hpp"

#include <doctest/doctest.h>

#include <tessera/core/error.hpp>
#include <tessera/core/overlap.hpp>

#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace ts = tessera;

static_assert(std::is_base_of_v<std::invalid_argument, ts::shape_error>);
static_assert(std::is_base_of_v<std::runtime_error, ts::unsupported_error>);
static_assert(std::is_base_of_v<std::runtime_error, ts::format_error>);
static_assert(std::is_base_of_v<std::runtime_error, ts::cuda_error>);
static_assert(TESSERA_EXCEPTIONS == 1);

namespace {

using tessera_test::message_of;
char const* const nothing = "nothing was thrown";

} // namespace

TEST_CASE("every check names operation, argument and both numbers, and is silent when it holds") {
    using namespace ts::check;
    CHECK(message_of([] { equal("apply", "columns of x", 5, 8, "columns of the operator"); }) ==
          "tessera: apply: columns of x is 5, expected 8 (columns of the operator)");
    CHECK(message_of([] { equal("apply", "columns of x", 8, 8, "columns of the operator"); }) == nothing);
    CHECK(message_of([] { within("rows", "last", 9, 0, 8); }) == "tessera: rows: last is 9, expected 0 to 8");
    CHECK(message_of([] { within("rows", "last", -1, 0, 8); }) == "tessera: rows: last is -1, expected 0 to 8");
    CHECK(message_of([] { within("rows", "last", 0, 0, 8); }) == nothing);
    CHECK(message_of([] { within("rows", "last", 8, 0, 8); }) == nothing);
    CHECK(message_of([] { at_least("greedy", "number of logits", 0, 1); }) ==
          "tessera: greedy: number of logits is 0, expected at least 1");
    CHECK(message_of([] { at_least("greedy", "number of logits", 1, 1); }) == nothing);
    CHECK(message_of([] { multiple("place", "k", 33, 32); }) == "tessera: place: k is 33, expected a multiple of 32");
    CHECK(message_of([] { multiple("place", "k", 0, 32); }) == nothing);
    CHECK(message_of([] { not_null("apply", "x", nullptr, 12); }) ==
          "tessera: apply: x is null but has 12 elements, expected 0 or a pointer");
    CHECK(message_of([] { not_null("apply", "x", nullptr, 0); }) == nothing);
}

TEST_CASE("overlap is judged by bytes: touching ranges are apart, empty ones never overlap") {
    char bytes[64];
    auto const overlap = [&](int a, int a_bytes, int b, int b_bytes) {
        return message_of([&] { ts::check::no_overlap("apply", "x", ts::footprint_of(bytes + a, a_bytes), "y", ts::footprint_of(bytes + b, b_bytes)); });
    };
    CHECK(overlap(0, 16, 8, 16) == "tessera: apply: x (16 bytes) overlaps y (16 bytes)");
    CHECK(overlap(0, 16, 16, 16) == nothing);
    CHECK(overlap(16, 16, 0, 16) == nothing);
    CHECK_FALSE(overlap(0, 64, 10, 1) == nothing);
    CHECK_FALSE(overlap(10, 1, 0, 64) == nothing);
    CHECK(overlap(0, 0, 0, 16) == nothing);
    CHECK(overlap(0, 16, 8, 0) == nothing);
    CHECK_FALSE(overlap(5, 1, 5, 1) == nothing);
}

TEST_CASE("the handler is replaceable, and not called where exceptions are on") {
    static bool called = false;
    auto const previous = ts::set_error_handler([](char const*) { called = true; });
    CHECK((previous == nullptr));
    CHECK_THROWS_AS(ts::check::equal("f", "a", 1, 2, "b"), ts::shape_error);
    CHECK_FALSE(called);
    CHECK((ts::set_error_handler(nullptr) != nullptr));
}
