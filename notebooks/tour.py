# ruff: noqa: PLR1711 - marimo writes these returns
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="A tour of a curated dataset")


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    # A tour of a curated dataset

    ```
    marimo edit notebooks/tour.py -- --root curate-demo      # look around and change the queries
    python notebooks/tour.py -- --root curate-demo           # run it from top to bottom
    ```

    It reads a dataset and changes nothing; it trains nothing and defines nothing. Whatever it shows comes
    from the packages.

    **Why marimo and not .ipynb:** the notebook is plain Python. A change to it can be reviewed line by line,
    no output or image is ever committed with it, it runs as a script, in the tests too, and no cell can show
    what another, deleted one has left behind.
    """)
    return


@app.cell
def _():
    import marimo as mo

    from curate import query
    from curate.dataset import existing
    from curate.funnel import funnel, funnel_markdown, funnel_table
    from curate.reporting.charts import funnel_svg, histogram_svg
    from curate.reporting.examples import duplicate_groups, rule_examples
    from curate.reporting.histograms import histograms
    from curate.reporting.text import condition, rules_of

    return (
        condition,
        duplicate_groups,
        existing,
        funnel,
        funnel_markdown,
        funnel_svg,
        funnel_table,
        histogram_svg,
        histograms,
        mo,
        query,
        rule_examples,
        rules_of,
    )


@app.cell
def _(existing, mo):
    data = existing(mo.cli_args().get("root") or "./curate-demo")
    print(f"{data.root}, version {data.at}: {', '.join(data.tables())}")
    return (data,)


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What happened to the pairs

    At every stage, in = kept + dropped + failed.
    """)
    return


@app.cell
def _(data, funnel, funnel_markdown, funnel_svg, funnel_table, mo):
    stages = funnel(data)
    print(funnel_table(stages))
    mo.vstack([mo.Html(funnel_svg(stages)), mo.md(funnel_markdown(stages))])
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Ask anything

    Every table is a view, and `pairs` joins those that have one row per pair. The same on the command
    line: `curate query ROOT "SQL"`.
    """)
    return


@app.cell
def _(data, mo, query):
    verdicts = query.query(
        data,
        "SELECT keep, reason, count(*) AS pairs FROM decisions GROUP BY ALL ORDER BY pairs DESC, reason",
    )
    print(verdicts.to_pylist())
    mo.ui.table(verdicts.to_pylist(), selection=None)
    return


@app.cell
def _(data, mo, query):
    longest = query.query(
        data,
        "SELECT urls__caption AS caption, reason, uid FROM pairs ORDER BY length(urls__caption) DESC NULLS LAST, uid LIMIT 5",
    )
    mo.ui.table(longest.to_pylist(), selection=None)
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Scores, and where the rules cut

    Grey: all downloaded pairs. Blue: those in the result. A rule drops the tinted side of its line.
    """)
    return


@app.cell
def _(data, histogram_svg, histograms, mo, query, rules_of):
    con = query.connect(data)
    rules = rules_of(data)
    distributions = histograms(con, rules, query.views(data))
    for h in distributions:
        cuts = ", ".join(t.label for t in h.thresholds) or "no threshold"
        print(f"{h.column}: {h.known} known, {h.unknown} unknown, {sum(h.kept)} kept; {cuts}")
    mo.hstack(
        [mo.vstack([mo.plain_text(h.column), mo.Html(histogram_svg(h))]) for h in distributions],
        wrap=True,
        widths=[320] * len(distributions),
    )
    return con, rules


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Dropped beside kept

    For each rule a fair draw of what it dropped; beside it the kept pairs nearest to its threshold.
    """)
    return


@app.cell
def _(con, condition, data, mo, rule_examples, rules):
    judged = rule_examples(con, data, rules, count=4)
    for j in judged:
        print(f"{j.name}: {j.failed} failed, {j.unknown} of them unknown")
    mo.vstack(
        [
            mo.vstack(
                [
                    mo.plain_text(
                        f"{j.name}: {j.failed} pairs"
                        + (f", drops {condition(j.rule)}" if j.rule else "")
                    ),
                    mo.hstack(
                        [
                            mo.vstack(
                                [
                                    mo.plain_text(side),
                                    mo.hstack(
                                        [
                                            mo.vstack(
                                                [
                                                    mo.image(e.thumbnail, width=96)
                                                    if e.thumbnail
                                                    else "no image",
                                                    mo.plain_text(
                                                        f"{e.note}\n{(e.caption or '')[:40]}"
                                                    ),
                                                ]
                                            )
                                            for e in pairs
                                        ]
                                    ),
                                ]
                            )
                            for side, pairs in (("dropped", j.dropped), ("kept", j.kept))
                        ]
                    ),
                ]
            )
            for j in judged
        ],
        gap=2,
    )
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Duplicates

    The pair that stays, and the copies it stands for.
    """)
    return


@app.cell
def _(con, data, duplicate_groups, mo):
    groups = duplicate_groups(con, data, count=4)
    print(f"{len(groups)} groups of duplicates shown, {sum(g.size for g in groups)} copies in them")
    mo.vstack(
        [
            mo.hstack(
                [
                    mo.vstack(
                        [
                            mo.image(e.thumbnail, width=96) if e.thumbnail else "no image",
                            mo.plain_text(e.note),
                        ]
                    )
                    for e in (g.kept, *g.dropped)
                ],
                justify="start",
            )
            for g in groups
        ]
    )
    return


if __name__ == "__main__":
    app.run()
