"""Conversations: what the model is given at each turn, what is remembered, and what is forgotten."""

import pytest
import torch

from cutaway.errors import ConfigError, InputError
from cutaway.generation.conversation import Conversation
from cutaway.generation.engine import Engine
from cutaway.models import Decoder, DecoderConfig, Encoder, EncoderConfig, Model
from cutaway.tokenizers import train_tokenizer
from cutaway.tokenizers.chat import chat_ids

CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTEXT = 256


def talker(context: int) -> Model:
    tokenizer = train_tokenizer(["hello there, how are you? <user> <assistant> <system> </s>"], "char", 300)
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    network = Decoder(DecoderConfig(tokenizer.vocab_size, context=context, layers=1, width=16, heads=2))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return Model(network, tokenizer, "small talk")


@pytest.fixture(scope="module")
def model() -> Model:
    return talker(CONTEXT)


def said(conversation: Conversation, text: str) -> str:
    return "".join(token.text for token in conversation.say(text))


def test_a_turn_is_the_template_of_all_that_was_said(model: Model):
    talk = Conversation(Engine(model), system="here", max_new_tokens=12, seed=3, sampling={"temperature": 0.9})
    first = said(talk, "hello")
    second = said(talk, "are you?")
    messages = [{"role": "system", "content": "here"}, {"role": "user", "content": "hello"}]
    options = {"max_new_tokens": 12, "temperature": 0.9}
    assert first == model.generate(chat_ids(model, messages), seed=3, **options).text
    messages += [{"role": "assistant", "content": first.strip()}, {"role": "user", "content": "are you?"}]
    assert second == model.generate(chat_ids(model, messages), seed=4, **options).text
    assert talk.messages == [*messages, {"role": "assistant", "content": second.strip()}]
    talk.undo()
    assert talk.messages == messages[:3]
    talk.reset()
    assert talk.messages == messages[:1]


def test_the_beginning_is_not_computed_again():
    talk = Conversation(Engine(talker(2048)), max_new_tokens=4)
    said(talk, "hello there, " * 80)
    assert talk.ticket is not None
    assert talk.ticket.cached_tokens == 0
    said(talk, "how are you?")
    unit = max(talk.engine.backend.page, talk.engine.backend.chunk)
    assert talk.ticket.cached_tokens >= 1040 // unit * unit > 0


def test_the_oldest_turns_are_forgotten_where_the_context_is_full(model: Model):
    talk = Conversation(Engine(model), system="hello", max_new_tokens=8)
    for turn in range(12):
        before = talk.forgotten
        said(talk, f"{'abcdefghijkl'[turn]} there how are you")
        assert talk.ticket is not None
        assert talk.ticket.prompt_tokens + 8 <= CONTEXT
        assert talk.messages[0] == {"role": "system", "content": "hello"}
        assert talk.messages[1]["role"] == "user"
        if talk.forgotten > before:  # down to a half, so that not every turn forgets
            assert talk.ticket.prompt_tokens <= CONTEXT // 2
            assert talk.forgotten - before >= 4
    assert talk.forgotten
    assert talk.forgotten + len(talk.messages) == 1 + 2 * 12


def test_what_is_longer_than_the_context_is_refused_and_not_remembered(model: Model):
    talk = Conversation(Engine(model), max_new_tokens=8)
    said(talk, "hello")
    before = [*talk.messages]
    with pytest.raises(InputError, match=r"what was said has 3\d\d tokens, but this model's context is 256"):
        said(talk, "how are you? " * 25)
    assert talk.messages == before
    assert talk.forgotten == 0


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(model: Model):
    talk = Conversation(Engine(model), max_new_tokens=100, sampling={"temperature": 0.0})
    answer = talk.say("hello")
    parts = [next(answer).text for _ in range(5)]
    answer.close()
    assert talk.finish_reason == "cancelled"
    assert talk.messages[-1] == {"role": "assistant", "content": "".join(parts).strip()}
    assert talk.engine.idle


def test_without_a_template_there_is_the_plain_format(model: Model):
    bare = Model(model.network, train_tokenizer(["User: Assistant: hello how are you?\n\n"], "char", 300), "a bare one")
    with pytest.raises(ConfigError, match="a bare one has no chat template"):
        Conversation(Engine(bare))
    talk = Conversation(Engine(bare), format="plain", system="how are", max_new_tokens=5, sampling={"temperature": 0.0})
    answer = said(talk, "hello?")
    prompt = "how are\n\nUser: hello?\n\nAssistant:"
    assert answer == bare.generate(prompt, max_new_tokens=5, temperature=0, stop="\nUser:").text
    with pytest.raises(ConfigError, match="unknown format 'plane'; did you mean plain"):
        Conversation(Engine(bare), format="plane")


def test_an_encoder_holds_no_conversation(model: Model):
    encoder = Model(Encoder(EncoderConfig(300, layers=1, width=16, heads=2)), model.tokenizer, "a reader")
    with pytest.raises(ConfigError, match="a reader is an encoder"):
        Conversation(Engine(encoder))
