// SPDX-License-Identifier: MIT
// The example's command line: what it says of sampling.

#include <doctest/doctest.h>

#include "../../../examples/generate/options.hpp"

#include <vector>

namespace {

generate::options parse(std::vector<char const*> const& arguments) { return generate::parse_options(arguments); }

} // namespace

TEST_CASE("options: greedy unless told otherwise") {
    auto const o = parse({}).choice;
    CHECK(o.temperature == 0.0f);
    CHECK(o.top_k == 0);
    CHECK(o.top_p == 1.0f);
    CHECK(o.min_p == 0.0f);
}

TEST_CASE("options: of sampling") {
    auto const o = parse({"--temperature", "0.8", "--top-k=40", "--top-p", "0.9", "--min-p=0.05", "--seed", "7"}).choice;
    CHECK(o.temperature == 0.8f);
    CHECK(o.top_k == 40);
    CHECK(o.top_p == 0.9f);
    CHECK(o.min_p == 0.05f);
    CHECK(o.seed == 7);
    for (char const* const wrong : {"--temperature=-1", "--temperature=nan", "--top-p=0", "--top-p=1.5", "--top-k=-1",
                                    "--min-p=2", "--min-p=x", "--seed=-1"}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS(parse({wrong}), generate::usage_error);
    }
}
