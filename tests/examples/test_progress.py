"""How far a run is, as the demos print it."""

from lib import progress
from lib.progress import Progress


def test_it_tells_how_long_all_will_take_and_then_now_and_then(monkeypatch, capsys):
    now = 100.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    tell = Progress("proxy loss", 600, runs=2)
    now += 50.0  # something else first
    for step in range(1, 601):
        now += 0.5
        tell(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  proxy loss: 600 steps, about 5 min, 2 runs of about as long"
    assert lines[1] == "  proxy loss: step 50, about 5 min left"
    assert lines[-1] == "  proxy loss: step 590, about 5 s left"
    assert len(lines) == 1 + (600 - 20) // 30
