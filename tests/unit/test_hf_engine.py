"""The transformers engine: answers and log-probabilities that do not depend on batches, padding or resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.models.hf import HFEngine
from harness.records import Generation, Message, ProctorError, Prompt, Sampling
from tests.unit.tiny import save_tiny

QUESTIONS = [
    "tom buys 3 pens for 4 dollars each . how many dollars does tom pay ?",
    "how many ?",
    "ana has 20 dollars and buys 2 books for 5 dollars each . how many dollars are left ?",
    "is 3 more than 4 ?",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> HFEngine:
    return HFEngine(folder)


def prompts(samples: int = 1) -> list[Prompt]:
    return [Prompt(f"q{i}", (Message("user", q),), s) for i, q in enumerate(QUESTIONS) for s in range(samples)]


def answers(engine: HFEngine, asked: list[Prompt], sampling: Sampling) -> dict[tuple[str, int], Generation]:
    return {(g.item, g.sample): g for g in engine.generate(asked, sampling)}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_in_any_batch(folder: Path, engine: HFEngine, temperature: float) -> None:
    sampling = Sampling(temperature=temperature, max_new_tokens=12, n=3, seed=5)
    together = answers(engine, prompts(3), sampling)
    alone = answers(HFEngine(folder, batch=1), prompts(3), sampling)
    assert together == alone and len(together) == 12
    if temperature:
        assert len({g.text for g in together.values()}) > 6, "samples differ"


def test_a_resumed_half_gives_the_same_answers(engine: HFEngine) -> None:
    sampling = Sampling(temperature=0.9, max_new_tokens=10, n=2, seed=1)
    whole = answers(engine, prompts(2), sampling)
    assert answers(engine, prompts(2)[5:], sampling) == {key: whole[key] for key in sorted(whole)[5:]}


def test_log_probs_equal_a_plain_unpadded_forward(engine: HFEngine) -> None:
    asked = prompts()
    given = answers(engine, asked, Sampling(temperature=1.0, max_new_tokens=9, seed=2))
    responses = [given[p.item, 0] for p in asked]
    found = engine.log_probs(asked, responses)
    for prompt, response, values in zip(asked, responses, found, strict=True):
        _, ids = engine.codec.prompt(prompt)
        row = torch.tensor([[*ids, *response.token_ids]])
        with torch.no_grad():
            table = engine.model(row).logits.double().log_softmax(-1)[0]
        plain = [float(table[len(ids) - 1 + t, token]) for t, token in enumerate(response.token_ids)]
        assert values == pytest.approx(plain, abs=1e-5)


def test_the_sum_of_probabilities_over_first_tokens_is_one(engine: HFEngine) -> None:
    vocabulary = [engine.codec.tokenizer.convert_ids_to_tokens(i) for i in range(len(engine.codec.tokenizer))]
    asked = prompts()[:1]
    rows = [
        Generation("q0", 0, 0, token, (index,), "length", 0, engine.tokenizer_hash)
        for index, token in enumerate(vocabulary)
    ]
    total = sum(torch.tensor(values).exp().item() for values in engine.log_probs(asked * len(rows), rows))
    assert total == pytest.approx(1.0, abs=1e-4)


def test_the_end_token_is_scored_only_where_the_text_ended(engine: HFEngine) -> None:
    asked = prompts()[:1]
    ended = Generation("q0", 0, 0, "answer : 4 .", (), "stop", 0)
    cut = Generation("q0", 0, 0, "answer : 4 .", (), "length", 0)
    long, short = engine.log_probs(asked * 2, [ended, cut])
    assert len(long) == len(short) + 1
    assert long[:-1] == pytest.approx(short, abs=1e-5)


def test_a_prompt_longer_than_the_context_is_one_clear_error_before_any_answer(tmp_path: Path) -> None:
    engine = HFEngine(save_tiny(tmp_path / "short", context=24))
    long = Prompt("long-1", (Message("user", " ".join(["pens"] * 40)),))
    with pytest.raises(ProctorError, match=r"item long-1: its prompt has \d+ tokens, but the context of .* is 24"):
        next(iter(engine.generate([Prompt("q1", (Message("user", "how many ?"),)), long], Sampling())))


def test_a_prompt_near_the_end_of_the_context_gets_a_shorter_answer(tmp_path: Path) -> None:
    engine = HFEngine(save_tiny(tmp_path / "short", context=24))
    asked = [Prompt("near", (Message("user", " ".join(["pens"] * 12)),)), Prompt("far", (Message("user", "how ?"),))]
    found = answers(engine, asked, Sampling(temperature=1.0, max_new_tokens=16, seed=3))
    _, ids = engine.codec.prompt(asked[0])
    assert len(found["near", 0].token_ids) <= 24 - len(ids)
    assert len(found) == 2


def test_stop_strings_end_a_text_and_are_no_part_of_it(engine: HFEngine) -> None:
    free = answers(engine, prompts()[:1], Sampling(max_new_tokens=12))["q0", 0]
    word = free.text.split()[2]
    stopped = answers(engine, prompts()[:1], Sampling(max_new_tokens=12, stop=(word,)))["q0", 0]
    assert free.text.startswith(stopped.text) and word not in stopped.text and stopped.finish_reason == "stop"


def test_choice_probs_are_the_probabilities_of_the_letters(engine: HFEngine) -> None:
    probs = engine.choice_probs(prompts()[:2], ["A", "B"])
    _, ids = engine.codec.prompt(prompts()[0])
    with torch.no_grad():
        table = engine.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    letter = engine.codec.tokenizer("A", add_special_tokens=False)["input_ids"]
    assert len(letter) == 1
    assert probs[0][0] == pytest.approx(float(table[letter[0]]), rel=1e-4)


def test_a_folder_without_a_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ProctorError, match="cannot be loaded"):
        HFEngine(tmp_path)
