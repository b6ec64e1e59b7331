"""The figure of a run is well-formed, and shows what there was."""

from xml.etree import ElementTree as ET

from chaos.figure import Panel, Second, draw


def test_a_figure_has_every_panel_mark_and_stage() -> None:
    seconds = [Second(n, 100, 90, 95) for n in range(30)]
    stages = [(0.0, "OPEN"), (10.2, "?"), (11.0, "CANCEL_ONLY"), (13.0, "OPEN")]
    svg = draw([Panel("a < b", seconds, stages, 150, [(10, "kill -9")]), Panel("c", seconds, [(0.0, "OPEN")], 150)])
    texts = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "c", "kill -9", "OPEN", "CANCEL_ONLY"} <= set(texts)
    assert "?" not in texts, "a stage that was not known is a gap, not a name"
