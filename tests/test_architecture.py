"""What docs/architecture.md says of parts of one's own: every registry with its key, and every example."""

from err_seg import plugins
from tests.helpers.documents import code_spans, table_rows
from tests.helpers.plugins import NAMES
from tests.helpers.toy import REPOSITORY

TEXT = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
SECTION = TEXT.split("\n## Add a part of your own\n")[1].split("\n## ")[0]


def test_the_table_has_every_registry_with_its_key():
    rows = [cells for headings, cells in table_rows(SECTION) if headings]
    shown = {code_spans(cells[0])[0]: code_spans(cells[1])[0] for cells in rows}
    registries = {name: value for name, value in vars(plugins).items() if isinstance(value, plugins.Registry)}
    assert shown == {name: registry.key for name, registry in registries.items()}


def test_every_example_is_named():
    assert {span for span in code_spans(SECTION) if span.startswith("examples/plugins/")} == {
        f"examples/plugins/{name}" for name in NAMES
    }
