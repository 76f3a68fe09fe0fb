from __future__ import annotations


def test_a_model_or_results_but_not_both(command):
    neither = command("evaluate", "--data", "d.json")
    assert neither.code == 2
    assert neither.err == "error: evaluate needs either --model or --results, found neither\n"
    both = command("evaluate", "--data", "d.json", "--model", "m.safetensors", "--results", "r.json")
    assert both.code == 2
    assert "found both" in both.err


def test_a_missing_model_file_is_one_line(command):
    ran = command("evaluate", "--data", "d.json", "--model", "no/such.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: no/such.safetensors")
    assert ran.err.count("\n") == 1
