"""What runs give together, and the tables made of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from device_sims.comparison.report import InsertError, as_markdown, insert
from device_sims.comparison.summary import Target, summarise
from device_sims.comparison.tables import differences, markdown, participation, results
from tests.device_sims.comparison.outcomes import case, outcome, panel


def test_the_document_is_json_and_has_what_programs_read() -> None:
    document = summarise([panel(case("slow", 0.05), case("quick", 0.1))], Target(share=0.95))
    assert json.loads(json.dumps(document)) == json.loads(json.dumps(document, sort_keys=True))
    (shown,) = document["panels"]
    assert set(shown) == {
        *("name", "facts", "baselines", "centralised", "target"),
        *("differences", "scenarios", "unfinished"),
    }
    first = shown["scenarios"][0]
    assert set(first) == {
        *("name", "digest", "settings", "seeds", "other_code", "runs", "broken", "devices"),
        *("picked", "end", "spent", "updates", "to_target", "courses", "staleness", "groups"),
        "exposure",
    }
    assert first["seeds"] == [0, 1, 2]
    assert first["staleness"]["histogram"] == [(0, 900), (1, 240), (7, 60)]
    assert first["staleness"]["mean"] == pytest.approx((80 + 140) / 400)
    assert first["spent"]["bytes_up"]["mean"] == 8 * 36_000


def test_time_to_target_and_how_many_times_the_firsts() -> None:
    document = summarise(
        [panel(case("slow", 0.05), case("quick", 0.1))], Target(share=0.95, ndcg=0.3)
    )
    slow, quick = (entry["to_target"]["hours"] for entry in document["panels"][0]["scenarios"])
    # .1 + .05 h + .001 seed = .3
    assert slow["spent"]["values"] == pytest.approx((4.0, 3.98, 3.96))
    assert quick["spent"]["values"] == pytest.approx((2.0, 1.99, 1.98))
    assert slow["times_first"]["mean"] == pytest.approx(1.0)
    assert quick["times_first"]["mean"] == pytest.approx(0.5)
    assert quick["times_first"]["low"] == pytest.approx(0.5)


def test_the_target_is_a_share_of_the_best_where_none_is_given() -> None:
    shown = summarise([panel(case("a", 0.05), case("b", 0.1, best=0.3))], Target(share=0.9))
    assert shown["panels"][0]["target"] == {
        "ndcg_at_10": pytest.approx(0.9 * 0.4),
        "share_of_best": 0.9,
    }


def test_where_one_seed_misses_the_target_no_mean_is_claimed() -> None:
    mixed = replace(case("mixed", 0.05), outcomes={0: outcome(0.05, 0), 1: outcome(0.0, 1)})
    document = summarise([panel(case("slow", 0.05), mixed)], Target(share=0.95, ndcg=0.3))
    found = document["panels"][0]["scenarios"][1]["to_target"]["hours"]
    assert found == {"reached_by": 1, "of": 2, "spent": None, "times_first": None}
    table = results(document["panels"][0])
    assert "reached by 1 of 2" in table.rows[1]


def test_quality_is_picked_on_validation_and_never_on_test() -> None:
    run = outcome(0.05, 0)
    run["quality"][3]["validation_ndcg_at_10"] = 0.9
    run["quality"][5]["ndcg_at_10"] = 0.99
    document = summarise([panel(replace(case("a", 0.05), outcomes={0: run}))], Target(share=0.95))
    entry = document["panels"][0]["scenarios"][0]
    assert entry["picked"]["ndcg_at_10"]["mean"] == run["quality"][3]["ndcg_at_10"]
    assert entry["end"]["ndcg_at_10"]["mean"] == run["quality"][-1]["ndcg_at_10"]


def test_a_beginning_without_a_version_leaves_the_rest_to_be_picked() -> None:
    run = outcome(0.05, 0)
    run["quality"][0] |= {"version": -1, "validation_ndcg_at_10": None}
    run["quality"][3]["validation_ndcg_at_10"] = 0.9
    document = summarise([panel(replace(case("a", 0.05), outcomes={0: run}))], Target(share=0.95))
    picked = document["panels"][0]["scenarios"][0]["picked"]["ndcg_at_10"]["mean"]
    assert picked == run["quality"][3]["ndcg_at_10"] != run["quality"][-1]["ndcg_at_10"]


def test_tables_leave_out_what_nobody_has_and_show_the_rest() -> None:
    plain = results(summarise([panel(case("a", 0.05))], Target(share=0.95))["panels"][0])
    assert "ER@10" not in plain.header
    assert "broken" not in plain.header
    attacked = case("attacked", 0.05, exposure=0.25)
    broken = outcome(0.05, 0, exposure=0.5)
    broken["audit"]["lost"] = 2
    worse = replace(attacked, name="broken", outcomes={0: broken})
    shown = summarise([panel(attacked, worse, centralised=True)], Target(share=0.95))["panels"][0]
    table = results(shown)
    assert table.rows[0][table.header.index("ER@10")] == ".250 ± .000"
    assert table.rows[1][table.header.index("broken")] == "lost"
    assert [row[0] for row in table.rows] == ["attacked", "broken", "popularity", "centralised"]
    took_part = participation(shown)
    assert took_part is not None
    assert took_part.rows[2][:5] == ["attacked", "slow", "10", "50 ± 0", "5.0"]


def test_what_differs_is_named_and_what_does_not_is_left_out() -> None:
    apart = differences(
        summarise([panel(case("a", 0.05), case("b", 0.1))], Target(share=0.95))["panels"][0]
    )
    assert apart is not None
    assert apart.rows == [["fleet.update_s", "20", "10"]]
    alone = summarise([panel(case("a", 0.05))], Target(share=0.95))["panels"][0]
    assert differences(alone) is None


def test_a_scenario_without_a_finished_run_is_named_and_not_shown() -> None:
    unfinished = replace(case("none", 0.05), outcomes={}, missing=(0, 1, 2))
    shown = summarise([panel(unfinished, case("a", 0.05))], Target(share=0.95))["panels"][0]
    assert shown["unfinished"] == {"none": [0, 1, 2]}
    assert [entry["name"] for entry in shown["scenarios"]] == ["a"]
    empty = summarise([panel(unfinished)], Target(share=0.95))
    assert "popularity" in as_markdown(empty)


def test_markdown_is_a_table_and_goes_where_it_belongs(tmp_path: Path) -> None:
    document = summarise([panel(case("a|b", 0.05))], Target(share=0.95))
    text = markdown(results(document["panels"][0]))
    lines = text.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    file = tmp_path / "EVIDENCE.md"
    file.write_text("# Head\n<!-- compare x -->\nold\n<!-- end x -->\ntail\n")
    for _ in range(2):
        insert(as_markdown(document), "x", file)
    written = file.read_text()
    assert written.startswith("# Head\n<!-- compare x -->\n\n**films")
    assert written.endswith("<!-- end x -->\ntail\n")
    assert "old" not in written
    assert written.count("<details>") == written.count("</details>") == 1
    with pytest.raises(InsertError, match="no line <!-- compare y -->"):
        insert("", "y", file)
