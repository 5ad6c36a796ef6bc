// SPDX-License-Identifier: MIT
// The example's chat template and sampler.

#include <doctest/doctest.h>

#include "../../../examples/generate/chat.hpp"
#include "../../../examples/generate/sampler.hpp"

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace ts = tessera;
using generate::message;
using generate::sampler;
using generate::sampling;
using generate::token_id;

namespace {

/// tokenizer.chat_template of SmolLM2-135M-Instruct.
constexpr char const* smollm2_template =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are "
    "a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

constexpr char const* plain_template =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

std::vector<message> const question{{"user", "Why?"}};

} // namespace

TEST_CASE("ChatML of SmolLM2's file, as jinja2 renders it") {
    auto const t = generate::parse_chat_template(smollm2_template);
    CHECK(t.default_system() == "You are a helpful AI assistant named SmolLM, trained by Hugging Face");
    CHECK(t.render(question) ==
          "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
          "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
    std::vector<message> const chat{{"system", "Be brief."}, {"user", " a "}, {"assistant", "b\n"}, {"user", ""}};
    CHECK(t.render(chat) == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n a <|im_end|>\n"
                            "<|im_start|>assistant\nb\n<|im_end|>\n<|im_start|>user\n<|im_end|>\n"
                            "<|im_start|>assistant\n");
    CHECK(t.render({}) == "<|im_start|>assistant\n");
}

TEST_CASE("ChatML without a default, newlines spelled out") {
    auto const t = generate::parse_chat_template(plain_template);
    CHECK(t.default_system().empty());
    CHECK(t.render(question) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
}

TEST_CASE("other templates are refused") {
    std::string const known = smollm2_template;
    for (std::string const& other :
         {std::string{}, std::string{"{{ messages }}"}, known + "x", "x" + known, known.substr(1),
          std::string{known}.replace(known.find("!="), 2, "=="), std::string{known}.replace(known.find("trained"), 1, "'"),
          std::string{known}.replace(known.find("['content']"), 11, "['content'] | trim")})
        CHECK_THROWS_WITH_AS(generate::parse_chat_template(other), doctest::Contains("--raw"), ts::unsupported_error);
}

TEST_CASE("greedy") {
    sampler s;
    CHECK(s(std::vector<float>{1, 3, 2}) == 1);
    CHECK(s(std::vector<float>{3, 3, 2}) == 0);
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float inf = std::numeric_limits<float>::infinity();
    CHECK(s(std::vector<float>{nan, 1, nan, 2}) == 3);
    CHECK(s(std::vector<float>{nan, -inf, -5}) == 2);
    CHECK(s(std::vector<float>{1, inf}) == 1);
    CHECK_THROWS_AS(s(std::vector<float>{}), ts::shape_error);
    CHECK_THROWS_AS(s(std::vector<float>{nan, -inf}), ts::shape_error);
}

TEST_CASE("sampling: the frequencies are the probabilities") {
    std::vector<float> const probability{0.5f, 0.25f, 0.125f, 0.0625f, 0.0625f};
    std::vector<float> logits;
    for (float const p : probability) logits.push_back(std::log(p) + 3.0f);
    constexpr int draws = 20000;
    auto const count = [&](sampling const& options) {
        sampler s{options};
        std::map<token_id, int> n;
        for (int i = 0; i < draws; ++i) ++n[s(logits)];
        return n;
    };
    // six standard deviations of a binomial count: one run in 5e8 would fail, and the seed is fixed
    auto const matches = [&](std::map<token_id, int> const& n, std::vector<double> const& p) {
        for (std::size_t i = 0; i < p.size(); ++i) {
            auto const at = n.find(static_cast<token_id>(i));
            double const got = at == n.end() ? 0 : at->second;
            CHECK(std::fabs(got - draws * p[i]) <= 6 * std::sqrt(draws * p[i] * (1 - p[i])));
        }
    };
    sampling o;
    o.temperature = 1;
    o.seed = 5;
    matches(count(o), {0.5, 0.25, 0.125, 0.0625, 0.0625});
    CHECK(count(o) == count(o));
    o.seed = 6;
    matches(count(o), {0.5, 0.25, 0.125, 0.0625, 0.0625});
    o.temperature = 0.5f; // squares
    matches(count(o), {0.25 / 0.3359375, 0.0625 / 0.3359375, 0.015625 / 0.3359375, 0.00390625 / 0.3359375,
                       0.00390625 / 0.3359375});
    o.temperature = 1;
    o.top_k = 2;
    matches(count(o), {2 / 3.0, 1 / 3.0, 0, 0, 0});
    o.top_k = 4; // of equals the first is kept
    matches(count(o), {8 / 15.0, 4 / 15.0, 2 / 15.0, 1 / 15.0, 0});
    o.top_k = 0;
    o.top_p = 0.7f;
    matches(count(o), {2 / 3.0, 1 / 3.0, 0, 0, 0});
    o.top_p = 0.8f;
    matches(count(o), {4 / 7.0, 2 / 7.0, 1 / 7.0, 0, 0});
    o.top_p = 1e-6f;
    matches(count(o), {1, 0, 0, 0, 0});
    o.top_p = 1;
    o.min_p = 0.2f;
    matches(count(o), {4 / 7.0, 2 / 7.0, 1 / 7.0, 0, 0});
}

TEST_CASE("sampling: options out of range") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (float const t : {-1.0f, nan, std::numeric_limits<float>::infinity()}) {
        sampling o;
        o.temperature = t;
        CHECK_THROWS_AS(sampler{o}, ts::shape_error);
    }
    for (float const p : {0.0f, -1.0f, 1.5f, nan}) {
        sampling o;
        o.top_p = p;
        CHECK_THROWS_AS(sampler{o}, ts::shape_error);
    }
    for (float const p : {-0.5f, 1.5f, nan}) {
        sampling o;
        o.min_p = p;
        CHECK_THROWS_AS(sampler{o}, ts::shape_error);
    }
    sampling o;
    o.top_k = -1;
    CHECK_THROWS_AS(sampler{o}, ts::shape_error);
}

TEST_CASE("sampling: tiny temperatures and hard logits") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float inf = std::numeric_limits<float>::infinity();
    sampling o;
    o.temperature = 1e-30f;
    sampler cold{o};
    CHECK(cold(std::vector<float>{1, 2, 1.5f}) == 1);
    o.temperature = 1;
    o.top_p = 0.9f;
    sampler warm{o};
    for (int i = 0; i < 100; ++i) {
        CHECK(warm(std::vector<float>{nan, -inf, 7}) == 2);
        CHECK(warm(std::vector<float>{1, inf, 7}) == 1);
    }
}
