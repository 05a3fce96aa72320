"""The request: defaults, strict types, and bad input named by its field."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import Problem, SpecError
from search.json_values import DEEPEST, MOST_VALUES
from search.spec import SPEC_VERSION, SearchSpec

SHORTEST = {"name": "x", "dataset": {"name": "digits"}}
WHOLE = "Must be a whole number, without quotes and without a decimal point."


def refused(data: Any) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        SearchSpec.parse(data)
    return caught.value.problems


def put(path: str, value: Any) -> dict[str, Any]:
    """The shortest request with `value` at a dotted path."""
    *outer, last = path.split(".")
    data: dict[str, Any] = {**SHORTEST, "dataset": dict(SHORTEST["dataset"])}
    inner = data
    for part in outer:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return data


def test_the_shortest_request() -> None:
    spec = SearchSpec.parse(SHORTEST)
    assert spec.backbone.name == "resnet14"
    assert [o.metric for o in spec.objectives] == ["top1", "macs"]
    assert spec.space.modules == ["none", "se", "cbam"]
    assert spec.budget.trials == 32
    assert spec.confirm is None


def test_a_request_as_the_design_writes_it() -> None:
    """YAML gives integers as the names of stages, and one choice needs no list."""
    spec = SearchSpec.parse({
        **SHORTEST,
        "space": {
            "modules": ["none", "se", {"kind": "bam", "dilation": [2, 4]}, ["aw", "se"]],
            "reduction": 8,
            "pattern": "every",
            "position": "residual",
            "stages": {3: {"modules": ["none", "nonlocal"]}},
        },
        "constraints": [{"metric": "params", "at_most": 1.0e6}],
        "confirm": {"top": 4, "seeds": 5, "baseline_seeds": 8, "epochs": 30},
        "resources": {"cpus": 1, "gpus": 0.25, "concurrent": 8},
    })  # fmt: skip
    assert spec.space.reduction == [8]
    assert spec.space.pattern == ["every"]
    assert spec.space.position == ["residual"]
    assert spec.space.stages["3"].modules == ["none", "nonlocal"]
    assert spec.space.stages["3"].reduction is None


def test_a_share_of_a_gpu_may_be_left_to_a_probe() -> None:
    resources = SearchSpec.parse({**SHORTEST, "resources": {"gpus": "auto", "cpus": 2}}).resources
    assert (resources.gpus, resources.trials_per_gpu, resources.cpus) == (1, "auto", 2)
    again = SearchSpec.parse({**SHORTEST, "resources": resources.model_dump(mode="json")}).resources
    assert again == resources
    settled = SearchSpec.parse({**SHORTEST, "resources": {"gpus": 0.125, "trials_per_gpu": 8}}).resources
    assert (settled.gpus, settled.trials_per_gpu) == (0.125, 8)
    for wrong in ({"gpus": "all"}, {"gpus": "auto", "trials_per_gpu": 3}, {"gpus": 0.5, "trials_per_gpu": "auto"}):
        with pytest.raises(SpecError, match="resources"):
            SearchSpec.parse({**SHORTEST, "resources": wrong})


def test_options_of_named_things_are_kept_for_them() -> None:
    spec = SearchSpec.parse({**SHORTEST, "strategy": {"name": "nsga2", "population": 8, "seed": 3}})
    assert spec.strategy.options == {"population": 8}
    assert spec.strategy.seed == 3


@pytest.mark.parametrize(
    "name",
    ["'; DROP TABLE searches", "<script>alert(1)</script>", "😀", "👩🏽‍🔬 lab", "🫨 shaking", "❤️", "注意力", "قناة",
     "a" * 200, "  spaced  ", "-"],
)  # fmt: skip
def test_names_that_must_succeed(name: str) -> None:
    assert SearchSpec.parse({**SHORTEST, "name": name, "owner": name}).name == name


MARKS = "Line breaks, control characters and marks of the direction of text are not allowed."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Must not be empty."),
        (" \u3000", "Must not be blank."),
        ("\u200d\ufe0f", "Must not be blank."),
        ("x" * 201, "Must not be longer than 200 characters."),
        ("\u202egnp.exe", MARKS),
        ("a\u2066b", MARKS),
        ("a\u200fb", MARKS),
        ("a\u200bb", MARKS),
        ("a\nb", MARKS),
        ("a\u2028b", MARKS),
        ("\x1b[31m", MARKS),
        ("a\x7fb", MARKS),
        ("a\ufeffb", MARKS),
        ("a\uffffb", MARKS),
        ("a\0b", "NUL characters and lone surrogates are not allowed."),
        ("a\ud800b", "NUL characters and lone surrogates are not allowed."),
        (5, "Must be a text."),
        (None, "Must be a text."),
        (["x"], "Must be a text."),
    ],
)
def test_names_that_are_refused(name: Any, message: str) -> None:
    assert refused({**SHORTEST, "name": name}) == (Problem("name", message),)


@pytest.mark.parametrize(
    "path",
    ["budget.trials", "training.epochs", "strategy.seed", "resources.concurrent", "confirm.top", "confirm.seeds",
     "confirm.baseline_seeds", "confirm.epochs", "priority"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["5", True, 1.0, [5], {}])
def test_nothing_is_converted_to_an_integer(path: str, value: Any) -> None:
    assert refused(put(path, value)) == (Problem(path, WHOLE),)


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("budget.trials", 0, "budget.trials", "Must be at least 1."),
        ("budget.trials", -5, "budget.trials", "Must be at least 1."),
        ("budget.trials", 10**6 + 1, "budget.trials", "Must be at most 1,000,000."),
        ("budget.hours", 0, "budget.hours", "Must be over 0."),
        ("budget.gpu_hours", -1.5, "budget.gpu_hours", "Must be over 0."),
        ("budget.hours", "2", "budget.hours", "Must be a number, without quotes."),
        ("budget.hours", True, "budget.hours", "Must be a number, without quotes."),
        ("resources.gpus", -1, "resources.gpus", "Must be at least 0."),
        ("resources.cpus", 0, "resources.cpus", "Must be over 0."),
        ("resources.gpus", math.nan, "resources.gpus", "Must be a finite number."),
        ("budget.hours", math.inf, "budget.hours", "Must be a finite number."),
        ("training.lr", math.nan, "training.lr", "Must be a finite number."),
        ("strategy.seed", 2**31, "strategy.seed", "Must be at most 2,147,483,647."),
        ("strategy.seed", 2**63, "strategy.seed", "Whole numbers over 63 bits are not allowed."),
        ("training.seed", -(2**63) - 1, "training.seed", "Whole numbers over 63 bits are not allowed."),
        ("priority", 10, "priority", "Must be at most 9."),
        ("confirm.seeds", 1, "confirm.seeds", "Must be at least 2."),
        ("controls", 1, "controls", "Must be true or false, without quotes."),
        ("tags", "a", "tags", "Must be a list."),
        ("tags", ["ok", "a\nb"], "tags.1", MARKS),
        ("tags", ["x"] * 21, "tags", "Takes at most 20 entries."),
        ("space", 5, "space", "Must be an object with named fields."),
        ("space.modules", [], "space.modules", "Needs at least 1 entry."),
        ("space.modules", ["se"] * 201, "space.modules", "Takes at most 200 entries."),
        ("space.modules", None, "space.modules", "Must be a list."),
        ("space.reduction", ["4"], "space.reduction.0", WHOLE),
        ("space.reduction", [4, 0], "space.reduction.1", "Must be at least 1."),
        ("space.stages", {"0": {}}, "space.stages.0", "A stage is named by its number, from 1."),
        ("space.stages", {"3x": {}}, "space.stages.3x", "A stage is named by its number, from 1."),
        ("space.stages", {"²": {}}, "space.stages.²", "A stage is named by its number, from 1."),
        ("space.stages", {3: {}, "3": {}}, "space.stages", "A field is listed twice, as a number and as a text."),
        ("space.stages", {"3": {"reduction": [True]}}, "space.stages.3.reduction.0", WHOLE),
        ("objectives", [], "objectives", "Needs at least 2 entries."),
        ("objectives", [{"metric": "top1"}], "objectives", "Needs at least 2 entries."),
        ("constraints", [{"metric": "macs"}], "constraints.0", "Give at_most, at_least or both."),
        ("constraints", [{"metric": "macs", "at_least": 2, "at_most": 1}], "constraints.0",
         "at_least is over at_most."),
        ("constraints", [{"metric": "macs", "at_most": "1"}], "constraints.0.at_most",
         "Must be a number, without quotes."),
        ("dataset", None, "dataset", "Must be an object with named fields."),
        ("dataset", {}, "dataset.name", "This field is required."),
        ("dataset.name", "x" * 101, "dataset.name", "Must not be longer than 100 characters."),
        ("strategy.points", [5], "strategy.points.0", "Must be an object with named fields."),
        ("strategy.points", {}, "strategy.points", "Must be a list."),
        ("strategy.early_stopping", 3, "strategy.early_stopping",
         "Write a name, or an object with a name and options."),
        ("strategy.early_stopping", {"eta": 3}, "strategy.early_stopping.name", "This field is required."),
        ("space.modules", [{"kind": "se", "reduction": (4,)}], "space.modules.0.reduction",
         "Must be a text, a number, true, false, null, a list or an object."),
        ("backbone", {"name": "resnet14", "wi\0dth": 1}, "backbone",
         "The names of fields must be texts without NUL characters and lone surrogates."),
        ("backbone", {"name": "resnet14", None: 1}, "backbone",
         "The names of fields must be texts without NUL characters and lone surrogates."),
        ("space.stages", {2**63: {}}, "space.stages",
         "The names of fields must be texts without NUL characters and lone surrogates."),
    ],
)  # fmt: skip
def test_bad_values_are_told_with_their_field(path: str, value: Any, field: str, message: str) -> None:
    assert refused(put(path, value)) == (Problem(field, message),)


@pytest.mark.parametrize(
    ("path", "value", "field", "choices"),
    [
        ("bugdet", 1, "bugdet", "budget"),
        ("budget.trails", 1, "budget.trails", "trials"),
        ("space.stages", {"2": {"module": ["se"]}}, "space.stages.2.module", "modules"),
        ("objectives", [{"metrics": "top1", "metric": "top1"}, {"metric": "macs"}], "objectives.0.metrics", "metric"),
        ("space.position", ["middle"], "space.position.0", "residual"),
        ("objectives", [{"metric": "top1", "goal": "up"}, {"metric": "macs"}], "objectives.0.goal", "max"),
    ],
)  # fmt: skip
def test_unknown_names_come_with_the_valid_ones(path: str, value: Any, field: str, choices: str) -> None:
    (problem,) = refused(put(path, value))
    assert problem.field == field
    assert problem.message in ("Unknown field.", "Not one of the valid choices.")
    assert choices in problem.choices


def test_several_problems_are_told_at_once() -> None:
    data = {"name": "", "dataset": {"name": "digits"}, "budget": {"trials": "5", "hours": -1}, "foo": 1}
    assert [problem.field for problem in refused(data)] == ["name", "budget.trials", "budget.hours", "foo"]


def test_no_more_problems_than_one_can_read() -> None:
    assert len(refused(put("strategy.points", [0] * 1000))) == 100
    assert len(refused(put("tags", [math.nan] * 1000))) == 100


@pytest.mark.parametrize("data", [None, 5, "name: x", [], [SHORTEST], True])
def test_what_is_no_object(data: Any) -> None:
    assert [problem.field for problem in refused(data)] == [""]


def nested(levels: int) -> Any:
    value: Any = "se"
    for level in range(levels):
        value = [value] if level % 2 else {"kind": value}
    return value


def test_nesting_has_an_end() -> None:
    """The request is level 1, `space` 2, `modules` 3."""
    SearchSpec.parse(put("space.modules", [nested(DEEPEST - 3)]))
    for levels in (DEEPEST - 2, 100_000):
        (problem,) = refused(put("space.modules", [nested(levels)]))
        assert problem.message == "Lists and objects may be nested 32 levels deep."


def test_a_list_in_itself_ends() -> None:
    """YAML's anchors can write it."""
    loop: list[Any] = []
    loop.append(loop)
    assert "nested" in refused(put("space.modules", loop))[0].message


def test_anchors_that_multiply_end() -> None:
    laughs: list[Any] = ["se"]
    for _ in range(20):
        laughs = [laughs] * 10
    assert refused(put("space.modules", laughs)) == (Problem("", f"A request holds at most {MOST_VALUES:,} values."),)


def test_integers_without_end() -> None:
    """Python refuses to write them as text."""
    endless = 10**5000
    assert refused(put("budget.trials", endless)) == (
        Problem("budget.trials", "Whole numbers over 63 bits are not allowed."),
    )
    assert refused(put("space.stages", {endless: {}}))[0].field == "space.stages"


def test_a_stored_spec_has_a_version() -> None:
    SearchSpec.parse_stored({**SHORTEST, "spec_version": SPEC_VERSION})
    for version in (None, SPEC_VERSION + 1, str(SPEC_VERSION)):
        with pytest.raises(SpecError) as caught:
            SearchSpec.parse_stored({**SHORTEST, "spec_version": version})
        (problem,) = caught.value.problems
        assert (problem.field, problem.choices) == ("spec_version", (str(SPEC_VERSION),))


def test_every_field_is_documented_or_speaks_for_itself() -> None:
    schema = SearchSpec.model_json_schema()
    assert schema["required"] == ["name", "dataset"]
    assert all(part.get("description") for part in schema["$defs"].values())


# texts with surrogates, numbers of any size, names of any kind, and what YAML has beside JSON
TEXTS = st.text(st.characters(codec=None), max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**70), 10**4000, 0, 1, 4])
    | st.floats()
    | TEXTS
    | st.binary(max_size=4)
    | st.dates()
    | st.tuples()
    | st.frozensets(st.integers(), max_size=2)
)
KEYS = (
    TEXTS | st.integers() | st.none() | st.booleans() | st.floats() | st.sampled_from(["kind", "name", "self", "cls"])
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def problems_of(data: Any) -> tuple[Problem, ...]:
    """Nothing for a request that is taken; any other error than a SpecError gets through."""
    try:
        SearchSpec.parse(data)
    except SpecError as error:
        return error.problems
    return ()


@settings(max_examples=150, deadline=None)
@given(ANYTHING)
def test_anything_is_a_request_or_a_spec_error(data: Any) -> None:
    assert all(problem.message for problem in problems_of(data))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SearchSpec.model_fields)), ANYTHING)
def test_any_value_of_any_field_is_taken_or_a_spec_error(field: str, value: Any) -> None:
    for problem in problems_of({**SHORTEST, field: value}):
        assert f"{problem.field}{problem.message}".encode()  # it can be sent
        assert problem.field == "" or problem.field.split(".")[0] == field


@pytest.mark.parametrize(
    ("resources", "field"),
    [({"cpus": 1e-9}, "resources.cpus"), ({"cpus": 0.00015}, "resources.cpus"), ({"gpus": 1.5}, "resources.gpus")],
)
def test_resources_that_ray_cannot_hand_out_are_refused(resources: dict[str, float], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        SearchSpec.parse({"name": "x", "dataset": {"name": "digits"}, "resources": resources})
    assert [problem.field for problem in refused.value.problems] == [field]
