// SPDX-License-Identifier: MIT
// The example's chat template.

#include <doctest/doctest.h>

#include "../../../examples/generate/chat.hpp"

#include <string>
#include <vector>

namespace ts = tessera;
using generate::message;

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
