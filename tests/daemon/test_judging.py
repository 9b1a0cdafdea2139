"""What generated answers are worth to the gate: measured on the worker's replies, or graded by another model."""

from __future__ import annotations

from typing import Any

import pytest
from test_chat_endpoint import Server, server  # noqa: F401

from daemon import grader, judging
from daemon.chat_endpoint import ChatEndpoint
from daemon.exam import OldQuestions
from daemon.judging import Contest
from daemon.worker_client import Question, Reply, WorkerClient
from genome.config import Config
from genome.errors import InvalidConfig, InvalidInput
from genome.scores import AnswerScore
from genome.signals import Turn
from genome.v1 import inference_pb2 as pb

BOTH = Contest("helper/git-v1.0", (), ())
ASKED = tuple(
    Question(id=str(number), answers=(f"[{number}]",), turns=(Turn(role="user", content=f"list {number}"),))
    for number in range(3)
)


class Worker(WorkerClient):
    """Stands for the inference worker: replies with the number it is asked for, as JSON, but never with 2."""

    def __init__(self) -> None:
        pass

    async def reply(self, request: Any, _seconds: float = 0.0) -> Reply:
        number = request.messages[0].content.rpartition(" ")[2]
        assert request.priority == pb.PRIORITY_BACKGROUND  # judging waits for whoever is served
        return Reply(f"[ {number} ]" if number != "2" else "no", pb.Served(), pb.Usage(), 0)


async def test_a_generated_answer_is_measured(server: Server) -> None:  # noqa: F811
    """By the set's measure, one value a question."""
    old = OldQuestions("golden/json_equal", ASKED, "json_equal")
    found, again = await judging.observed(Worker(), old, BOTH, Config(base="b"))
    assert found == again == {"0": (1.0, 1.0), "1": (1.0, 1.0), "2": (0.0, 1.0)}


async def test_another_model_can_grade(server: Server) -> None:  # noqa: F811
    """Beside the right answer, from 0 to 10; what it is asked holds both answers and the question."""
    server.says("GRADE: 10")
    server.says("grade: 7")
    server.says("GRADE: 0")
    config = Config.model_validate({"base": "b", "endpoint": {"url": server.url, "model": "m"}})
    old = OldQuestions("golden/judge", ASKED, "judge")
    before, after = await judging.observed(Worker(), old, BOTH, config)
    assert [value for value, _ in before.values()] == [1.0, 0.7, 0.0]
    assert [value for value, _ in after.values()] == [0.0, 0.0, 0.0]  # what the server says from then on
    _, _, body = server.asked[1]
    assert all(text in body["messages"][1]["content"] for text in ("list 1", "[1]", "[ 1 ]"))


async def test_a_model_that_gives_no_grade_is_an_error(server: Server) -> None:  # noqa: F811
    """Never a zero that nobody gave; and without an endpoint it is said what to configure."""
    server.says("I like it, 11 of 10!")
    with pytest.raises(InvalidInput, match="gave no grade but 'I like it"):
        await grader.grade(ChatEndpoint(server.url, "m"), ASKED[0].turns, "a", "b")
    with pytest.raises(InvalidConfig, match="no endpoint is configured"):
        await judging.observed(Worker(), OldQuestions("golden/judge", ASKED, "judge"), BOTH, Config(base="b"))


class Narrow:
    """Stands for the inference worker: refuses what does not fit its context, and all that is sent with it."""

    async def score(self, questions: Any, _stack: Any) -> Any:
        if any(len(question.turns[0].content) > 100 for question in questions):
            raise InvalidInput("too long for the context")
        return [tuple(AnswerScore(-1.0, 1, 1) for _ in question.answers) for question in questions]


async def test_a_question_that_is_too_long_is_left_out_alone() -> None:
    """One line of a megabyte must not stop the judging of all others, nor count for one side."""
    long = Question(id="long", answers=("a",), turns=(Turn(role="user", content="x" * 101),))
    asked = OldQuestions("anchors", (*ASKED, long, *ASKED[:1]))
    before, after = await judging.observed(Narrow(), asked, BOTH, Config(base="b"))
    assert before.keys() == after.keys() == {"0", "1", "2"}
