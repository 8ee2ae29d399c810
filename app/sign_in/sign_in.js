// Sends the name and the password, and loads the page again once they are right: a link to a result leads to the result.
const form = document.querySelector("form"), problem = form.querySelector(".problem"), button = form.querySelector("button");

form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.textContent = "";
    button.disabled = true;
    try {
        const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
        if (answer.ok) return location.reload();
        const said = answer.status === 400 ? {} : await answer.json().catch(() => ({}));
        problem.textContent = said.message ?? form.dataset.wrong;
    } catch {
        problem.textContent = form.dataset.failed;
    }
    button.disabled = false;
    form.elements.password.select();
});
