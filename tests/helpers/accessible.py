"""What axe-core, the usual checker of accessibility, finds wrong with a page in a browser."""

from axe_playwright_python.sync_playwright import Axe


def accessible(page) -> None:
    """Fail with every fault that axe finds in the page as it stands now: rule, element, what is wrong."""
    faults = [
        f"{rule['id']}: {node['html'][:160]}: {node['failureSummary']}"
        for rule in Axe().run(page).response["violations"]
        for node in rule["nodes"]
    ]
    assert not faults, "\n".join(faults)
