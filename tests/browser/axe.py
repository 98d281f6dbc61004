"""What axe-core says of a page. Not a test file."""

from pathlib import Path

from playwright.sync_api import Page

AXE = Path(__file__).parents[2] / "studio" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async (only) => {
  const found = await axe.run(document, {resultTypes: ["violations"], ...(only.length && {runOnly: only})});
  return found.violations.map(({id, impact, nodes}) =>
    [id, impact, nodes.map((node) => `${node.target.join(" ")}: ${node.failureSummary}`).join(" | ").slice(0, 600)]);
}"""


def violations(page: Page, *but: str, only: tuple[str, ...] = ()) -> list[list[str]]:
    """What is wrong, of any impact: rule, impact, where. The page's context must bypass its policy (`bypass_csp`).

    Rules in `but` are left out; `only`: no rules but these are tried.
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text("utf-8"))
    return [found for found in page.evaluate(RUN, only) if found[0] not in but]
