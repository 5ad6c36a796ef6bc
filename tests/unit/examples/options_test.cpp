// SPDX-License-Identifier: MIT
// The example's command line: what it takes, and what it says of what it does not take.

#include <doctest/doctest.h>

#include "../../../examples/generate/options.hpp"

#include <string>
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

TEST_CASE("options: adapters and the cache") {
    auto const o = parse({"--adapter", "one", "--adapter=two=0.5", "--adapter", "a=b=-2", "--cache", "folder", "--cache-check=sampled"});
    REQUIRE(o.adapters.size() == 3);
    CHECK(o.adapters[0].folder == "one");
    CHECK(o.adapters[0].weight == 1.0f);
    CHECK(o.adapters[1].folder == "two");
    CHECK(o.adapters[1].weight == 0.5f);
    CHECK(o.adapters[2].folder == "a=b");
    CHECK(o.adapters[2].weight == -2.0f);
    CHECK(o.cache == "folder");
    CHECK(o.cache_check == tessera::content_check::sampled);
    CHECK(!parse({}).cache);
    for (char const* const wrong : {"--adapter=x=y", "--cache-check=none", "--adapter=x="}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS(parse({wrong}), generate::usage_error);
    }
}

TEST_CASE("options: the KV cache and long contexts") {
    using generate::eviction;
    auto const o = parse({"--kv", "int8,int4_g32", "--context", "16384", "--rope-scaling=linear"});
    CHECK(o.kv.formats == "int8,int4_g32");
    CHECK(o.kv.evict == eviction::none);
    CHECK(o.context == 16384);
    CHECK(o.rope == generate::rope_scaling::linear);
    auto const window = parse({"--window", "100", "--sinks=2"}).kv;
    CHECK(window.evict == eviction::window);
    CHECK(window.kept() == 227); // in pages of 64
    CHECK(window.room(1000, 64) == 291);
    CHECK(window.room(50, 64) == 50);
    auto const heavy = parse({"--window=64", "--evict", "h2o"}).kv;
    CHECK(heavy.evict == eviction::heavy_hitters);
    CHECK(heavy.kept() == 64);
    auto const best = parse({"--window=64", "--evict", "top-k", "--sinks", "8"}).kv;
    CHECK(best.evict == eviction::top_k);
    CHECK(best.room(1000, 64) == 1000); // nothing is forgotten
    CHECK(parse({"--evict=none"}).kv.evict == eviction::none);
    for (char const* const wrong : {"--kv=int5", "--kv=fp16,", "--kv=,fp16", "--kv=fp16,int8,int8", "--kv=", "--sinks=4", "--window=0", "--evict=old", "--context=0", "--rope-scaling=no"}) {
        CAPTURE(wrong);
        CHECK_THROWS_AS(parse({wrong}), generate::usage_error);
    }
}

TEST_CASE("options: none is ignored, and messages say why") {
    auto const message = [](std::vector<char const*> const& arguments) -> std::string {
        try {
            parse(arguments);
        } catch (generate::usage_error const& e) {
            return e.what();
        }
        return "";
    };
    CHECK(message({"--evict", "none", "--window", "64"}) == "--window has no effect: --evict none forgets nothing");
    CHECK(message({"--evict", "h2o", "--sinks", "4"}) == "--sinks has no effect: --evict h2o keeps no first tokens but heavy ones");
    CHECK(message({"--top-k", "40"}) == "--top-k has no effect: nothing is drawn at --temperature 0, the default");
    CHECK(message({"--raw", "--system", "x"}) == "--system has no effect: --raw has no chat template");
    CHECK(message({"--kv", "int8,"}).starts_with("--kv: tessera: kv_formats: 'int8,' is not KEYS,VALUES, nor one format for both; there are fp32, "));
    CHECK(message({"--kv", "int5"}).starts_with("--kv: tessera: kv_formats: no format is called 'int5', there are fp32, "));
    CHECK(message({"--prompt", "--length", "5"}) == "--prompt wants a value; one that begins with -- is written --prompt=--length");
    CHECK(parse({"--prompt=--length"}).prompt == "--length");
    CHECK(message({"--bench", "8"}) == "--bench wants two numbers: --bench 512,128");
    for (std::vector<char const*> const& wrong : std::vector<std::vector<char const*>>{
             {"--synthetic", "--model", "x"}, {"--cache-check", "whole"}, {"--exact", "--activations", "automatic"},
             {"--activations", "automatic", "--exact"}, {"--bench", "0,0"}, {"--bench", "8,8", "--prompt", "x"},
             {"--backend", "cuda", "--kv", "int8"}, {"--backend", "cuda", "--bench", "8,8"}, {"--model="}, {"--adapter=", "x"},
             {"--adapter", "=0.5"}, {"--cache="}, {"--sinks", "4"}})
        CHECK(message(wrong) != "");
    CHECK(message({"--exact", "--activations", "exact"}) == "");
    CHECK(message({"--temperature", "0", "--seed", "1"}) == "");
}
