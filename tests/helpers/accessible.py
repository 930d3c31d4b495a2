"""What axe-core, the usual checker of accessibility, finds wrong with a page in a browser."""

from axe_playwright_python.sync_playwright import Axe

# Of gradio's own parts, where no option of ours reaches: id of the rule, part of the element.
GRADIOS_OWN: tuple[tuple[str, str], ...] = ()


def accessible(page) -> None:
    """Fail with every fault that axe finds in the page as it stands now: rule, what it wants, elements."""
    faults = []
    for rule in Axe().run(page).response["violations"]:
        seen = [n["html"] for n in rule["nodes"]]
        seen = [h for h in seen if not any(rule["id"] == id and part in h for id, part in GRADIOS_OWN)]
        faults += [f"{rule['id']}: {rule['help']}: {html[:160]}" for html in seen]
    assert not faults, "\n".join(faults)
