// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The chat template ChatML, with the default system message that a model's file states.
///
///     <|im_start|>system
///     You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
///     <|im_start|>user
///     Why is the sky blue?<|im_end|>
///     <|im_start|>assistant
///
/// Files carry their template as a Jinja program. This reads the two programs that mean ChatML (with and without a
/// default system message) and refuses any other: a template that is nearly right gives answers that are nearly right.

#include "tokenizer.hpp"

#include <tessera/interop/gguf.hpp>

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace generate {

struct message {
    std::string role; ///< "system", "user" or "assistant"
    std::string content;
};

class chat_template {
public:
    /// ChatML; `default_system` is what precedes a chat that does not begin with a system message, if not empty.
    explicit chat_template(std::string default_system = {}) : default_system_{std::move(default_system)} {}

    std::string const& default_system() const noexcept { return default_system_; }

    /// The messages and the beginning of the answer, as one text.
    std::string render(std::span<message const> messages) const {
        std::string out;
        for (owned_piece const& p : pieces(messages)) out += p.text;
        return out;
    }

    /// The same as tokens. What a message contains stays text: it cannot end its turn by spelling `<|im_end|>`.
    std::vector<token_id> encode(tokenizer const& t, std::span<message const> messages) const {
        std::vector<owned_piece> const owned = pieces(messages);
        std::vector<text_piece> views;
        for (owned_piece const& p : owned) views.push_back({p.text, p.special});
        return t.encode(views);
    }

    /// The token that ends a turn.
    static token_id end_of_turn(tokenizer const& t) { return t.special("<|im_end|>").value_or(t.end_token()); }

private:
    struct owned_piece {
        std::string text;
        special_tokens special;
    };

    std::vector<owned_piece> pieces(std::span<message const> messages) const {
        std::vector<owned_piece> out;
        auto const turn = [&](std::string const& role, std::string const& content) {
            out.push_back({"<|im_start|>" + role + "\n", special_tokens::parse});
            out.push_back({content, special_tokens::as_text});
            out.push_back({"<|im_end|>\n", special_tokens::parse});
        };
        bool const has_system = !messages.empty() && messages[0].role == "system";
        if (!messages.empty() && !has_system && !default_system_.empty()) turn("system", default_system_);
        for (message const& m : messages) turn(m.role, m.content);
        out.push_back({"<|im_start|>assistant\n", special_tokens::parse});
        return out;
    }

    std::string default_system_;
};

/// Recognises a Jinja program that renders ChatML.
/// @throws tessera::unsupported_error for any other
inline chat_template parse_chat_template(std::string_view jinja) {
    // Newlines are spelled as themselves or as \n; outside of the system message white space means nothing here.
    std::string program;
    for (std::size_t i = 0; i < jinja.size(); ++i) {
        bool const escaped = jinja.substr(i).starts_with("\\n");
        program += escaped ? '\n' : jinja[i];
        i += escaped;
    }
    auto const squeezed = [](std::string_view s) {
        std::string out;
        for (char const c : s)
            if (c != ' ' && c != '\n' && c != '\r' && c != '\t') out += c;
        return out;
    };
    constexpr std::string_view loop = "{%formessageinmessages%}";
    constexpr std::string_view before = "{%ifloop.firstandmessages[0]['role']!='system'%}{{'<|im_start|>system";
    constexpr std::string_view after = "<|im_end|>'}}{%endif%}";
    constexpr std::string_view turns = "{{'<|im_start|>'+message['role']+''+message['content']+'<|im_end|>'+''}}"
                                       "{%endfor%}{%ifadd_generation_prompt%}{{'<|im_start|>assistant'}}{%endif%}";
    constexpr std::string_view system_begin = "'<|im_start|>system\n";
    constexpr std::string_view system_end = "<|im_end|>\n'";

    std::string const whole = squeezed(program);
    if (whole == std::string{loop} + std::string{turns}) return chat_template{};
    std::size_t const begin = program.find(system_begin);
    if (begin != std::string::npos) {
        std::size_t const first = begin + system_begin.size();
        std::size_t const end = program.find(system_end, first);
        if (end != std::string::npos) {
            std::string const system = program.substr(first, end - first);
            std::string expected{loop};
            expected.append(before).append(squeezed(system)).append(after).append(turns);
            bool const is_plain = system.find('\'') == std::string::npos && system.find('\\') == std::string::npos;
            if (whole == expected && is_plain && !system.empty()) return chat_template{system};
        }
    }
    tessera::detail::raise<tessera::unsupported_error>(
        "chat template: the file's template is not ChatML; pass the prompt as it is with --raw");
}

/// The template of a model's file.
/// @throws tessera::unsupported_error when it has none, or none that is known
inline chat_template read_chat_template(tessera::gguf::file const& file) {
    auto const* const entry = file.find("tokenizer.chat_template");
    if (entry == nullptr)
        tessera::detail::raise<tessera::unsupported_error>(
            "chat template: the file has none; pass the prompt as it is with --raw");
    return parse_chat_template(file.get<std::string_view>("tokenizer.chat_template"));
}

} // namespace generate
