// Lists the results of this browser; it is read anew when a result was added.
const list = () => recent.list(element.querySelector(".recent"), current(), (id) => `/?result=${id}`);
const current = () => new URLSearchParams(location.search).get("result");
document.addEventListener("recent-changed", list);
list();
