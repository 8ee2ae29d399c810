// The address of the page says which tab and which result are shown, so that a reload and Back bring them again.
const address = {
    result: () => new URLSearchParams(location.search).get("result"),
    tab: () => location.hash.slice(1),
    slug: (button) => button.textContent.trim().toLowerCase().replace(/\W+/g, "-"),
    tabs: () => [...document.querySelectorAll("#tabs [role=tab]")],
    showTab() {
        const inMenu = [...document.querySelectorAll("#tabs .overflow-dropdown button")]; // those without room in the row
        const tabs = [...this.tabs(), ...inMenu];
        const wanted = tabs.find((button) => this.slug(button) === this.tab()) ?? (this.tab() ? null : tabs[0]);
        if (wanted && wanted.getAttribute("aria-selected") !== "true") {
            wanted.click();
        }
    },
    push(result, hash) {
        const next = `${location.pathname}${result ? `?result=${encodeURIComponent(result)}` : ""}${hash}`;
        if (next !== location.pathname + location.search + location.hash) {
            history.pushState(null, "", next);
        }
    },
};
document.addEventListener("click", (event) => {
    const button = event.target.closest?.("#tabs [role=tab]");
    if (button && event.isTrusted) {
        const slug = address.slug(button);
        address.push(address.result(), slug === address.slug(address.tabs()[0]) ? "" : `#${slug}`);
    }
});
