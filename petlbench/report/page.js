// Tables that sort and filter, charts that answer, and a print that shows everything.
import DataTable from "datatables";

for (const table of document.querySelectorAll("table.sortable")) {
    const page = Number(table.dataset.page);
    const controls = page ? { bottomStart: "info", bottomEnd: "paging" } : { bottomStart: "info" };
    new DataTable(table, {
        order: [],
        paging: page > 0,
        pageLength: page || 10,
        autoWidth: false,
        layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null, ...controls },
        language: { search: "Filter", info: "_START_–_END_ of _TOTAL_", infoEmpty: "none", infoFiltered: "(filtered from _MAX_)" },
    });
}

for (const script of document.querySelectorAll("script.data")) {
    Bokeh.embed.embed_item(JSON.parse(script.textContent));
}

addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
});
