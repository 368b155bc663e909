"""HTML to Markdown: what is kept, how it is written, what is hidden. Markdown is read back by markdown-it."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml.cssselect import CSSSelector
from lxml.html import fromstring
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ilab.documents.html.reader import MAX_BYTES, MAX_TAGS, Links, links, read, to_markdown
from ilab.documents.html.selector import parse
from ilab.documents.markdown import blocks as chunk_blocks
from ilab.errors import InputError

READER = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


def markdown(page: str) -> str:
    return to_markdown(page, whole=True).text


def content(page: str, base: str = "https://ex.org/docs/page.html") -> str:
    return to_markdown(page, base=base).text


def words_of(tokens: list[Token] | None) -> Iterator[str]:
    """All text that a reader of Markdown gets."""
    for token in tokens or []:
        if token.type == "inline" or token.type == "image":
            yield from words_of(token.children)
        elif token.type in ("text", "code_inline", "fence", "code_block", "text_special", "html_inline", "html_block"):
            yield token.content
        elif token.type in ("softbreak", "hardbreak"):
            yield " "


def shown(text: str) -> str:
    """What of ``text`` leaves a mark on a screen."""
    return "".join(text.replace("\u200b", "").split())


# --- blocks and inline -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<h1>A</h1><p>b\n  c</p>d<div>e</div>", "# A\n\nb c\n\nd\n\ne\n"),
        ("<h2><strong>All bold</strong></h2>", "## All bold\n"),
        ("<h3>a <b>b</b> #</h3>", "### a **b** \\#\n"),
        ("a<br>b<br><br>c", "a\\\nb\n\nc\n"),
        ("<p>a</p><hr><hr><p>b</p><hr>", "a\n\n---\n\nb\n"),
        ("<ul><li>a<ul><li>b</ul><li>c</ul>", "- a\n  - b\n- c\n"),
        ("<ul><li><p>a</p><li><p>b</p></ul>", "- a\n\n- b\n"),
        ("<ul><li>a</ul><ul><li>b</ul><ul><li>c</ul>", "- a\n\n* b\n\n- c\n"),
        ("<ol start=9><li>a<li>b<li value=3>c</ol>", "9. a\n10. b\n3. c\n"),
        ("<ol><li>a<ol start=2><li>b</ol></ol>", "1. a\n\n   2. b\n"),
        ("<ul><li>a<ul><li>x</ul>tail</ul>", "- a\n\n  - x\n\n  tail\n"),
        ("<ul>loose<li>a</ul>", "- loose\n- a\n"),
        ("<ul><li>a</ul><ul><li>**</ul>", "- a\n\n* \\**\n"),  # "* **" would be a rule
        ("<ul><ul><li>deep</ul></ul>", "- - deep\n"),
        ("<dl><dt>T<dt>U<dd>d<dt>V<dd>e</dl>", "- **T**\n\n  **U**\n\n  d\n\n- **V**\n\n  e\n"),
        ("<blockquote>a<p>b</p><ul><li>c</ul></blockquote>", "> a\n>\n> b\n>\n> - c\n"),
        ("<details><summary>More</summary>text</details>", "**More**\n\ntext\n"),
        ("<pre>\n a\tb\n\n  c  \n</pre>", "```\n a\tb\n\n  c  \n```\n"),
        ('<pre class="x"><code class="language-py">a<b>b</b><br>c</code></pre>', "```py\nab\nc\n```\n"),
        ('<div class="highlight-c++ notranslate"><pre>x</pre></div>', "```c++\nx\n```\n"),
        ("<pre>```\nx\n````</pre>", "`````\n```\nx\n````\n`````\n"),
        ("<pre><div>a</div><div>b</div></pre>", "```\na\nb\n```\n"),
        ("<ul><li>a<pre>x\n\ty</pre><li>b</ul>", "- a\n  ```\n  x\n  \ty\n  ```\n- b\n"),
        ('<div class="admonition tip"><p class="admonition-title">Tip</p><p>a</p></div>', "> **Tip**\n>\n> a\n"),
        ("<figure><img src=a.png alt='A  b'><figcaption>C</figcaption></figure>", "![A b](a.png)\n\nC\n"),
        ("<p><img src=a.png alt=''><img src='data:x' alt=Y>", "Y\n"),
        ("<ul><li><input type=checkbox checked> a<li><input type=checkbox> b</ul>", "- [x] a\n- [ ] b\n"),
    ],
)
def test_blocks(page: str, wanted: str) -> None:
    assert markdown(page) == wanted


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("a <b> b </b>c", "a **b** c"),
        ("<b>a</b><b> b</b> <b>c</b>", "**a b** **c**"),
        ("<b>a<br>b</b><br><i>c</i>", "**a\\\nb**\\\n_c_"),
        ("<b>a <i>b</i></b>", "**a _b_**"),
        ("<i>a <b>b</b></i><b>c</b>", "_a **b**_**c**"),
        ("x<b>y</b>z, x<i>y</i>z", "x**y**z, xyz"),  # "_" does nothing inside a word
        ("a<b>“b”</b>c", "a“b”c"),  # nor "**" between a letter and a quotation mark
        ("<b>a</b><i>b</i>", "**a**_b_"),
        ("<s>a</s> <del>b</del>", "~~a~~ ~~b~~"),
        ("<code> a  b </code>x", "`a b` x"),
        ("<code>a`b</code> <code>`</code>", "``a`b`` `` ` ``"),
        ("<b><code>a</code></b> <code><b>b</b></code>", "**`a`** `b`"),
        ("<code>f(<a href=u>T</a>)</code>", "`f(`[`T`](u)`)`"),
        ("<kbd>Ctrl</kbd>+<samp>x</samp> <var>n</var> <q>q</q>", "`Ctrl`+`x` _n_ “q”"),
        ("H<sub>2</sub>O, 10<sup>-3</sup>, 1<sup>st</sup>", "H₂O, 10⁻³, 1st"),
        ("i<b>&#x200b;</b>g&#x200b;n<i>&zwj; &#xfeff;</i>ore", "ig\u200bn ore"),
        ("* <b>**</b>", "\\* **\\*\\***"),
        ("a&nbsp;&nbsp;b&shy;c<wbr>d", "a bcd"),
        ("<a href='a b(c.html'>x</a>", "[x](a%20b%28c.html)"),
        ("<a href='x_(y)?a=1&amp;copy;'>x</a>", "[x](x_(y)?a=1\\&copy;)"),
        ("<a href=u>a]b</a> <a href=u>[1]</a>", "[a\\]b](u) [[1]](u)"),
        ("<a href='javascript:x()'>x</a><a href=u></a>", "x"),
        ("<a href='https://a.b/c_d'>https://a.b/c_d</a>", "<https://a.b/c_d>"),
        ("<b>see <a href=u>it</a> now</b>", "**see [it](u) now**"),
        ("<a href=u>1</a><a href=u>2</a>", "[1](u)[2](u)"),
        ("go!<a href=u>x</a>", "go\\![x](u)"),
        ("Foo_bar 2 * 3 [1] a*b ~x \\n C:\\d & &lt; 5", "Foo_bar 2 * 3 [1] a*b ~x \\n C:\\d & < 5"),
        ("a*b*c __init__ `x` ~~no~~", "a\\*b\\*c \\_\\_init\\_\\_ \\`x\\` \\~\\~no\\~\\~"),
        ("&lt;none> &amp;lt; [a](b) \\*", "\\<none> \\&lt; [a\\](b) \\\\*"),
        ("# a", "\\# a"),
        ("1. a", "1\\. a"),
        ("- a", "\\- a"),
        ("---", "\\---"),
        ("| a", "\\| a"),
        ("x<br>===", "x\\\n\\==="),
        ("[a]: b", "\\[a]: b"),
        ("-5 +x 1.5 #tag", "-5 +x 1.5 #tag"),
    ],
)
def test_inline(page: str, wanted: str) -> None:
    assert markdown(f"<p>{page}</p>") == wanted + "\n"


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<tr><th>A<th>B<tr><td>1<td>2", "| A | B |\n| --- | --- |\n| 1 | 2 |\n"),
        ("<tr><td>1<td>2", "|  |  |\n| --- | --- |\n| 1 | 2 |\n"),
        (
            "<caption>C</caption><thead><tr><th>A<tbody><tr><td>a|b <code>c|d</code>",
            "C\n\n| A |\n| --- |\n| a\\|b `c\\|d` |\n",
        ),
        (
            "<tr><th colspan=2>A<th>B<tr><td rowspan=2>1<td>2<td>3<tr><td>4<td>5",
            "| A |  | B |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n|  | 4 | 5 |\n",
        ),
        ("<tr><th>A<tr><td><p>a<p>b<ul><li>c<li>d</ul>e<br>f", "| A |\n| --- |\n| a b c d e f |\n"),
        ("<tr><th>A<th>B<tr><td><table><tr><td>x<td>y</table><td>z", "| A | B |\n| --- | --- |\n| x y | z |\n"),
        ("<tr><td><h2>T</h2><p>a", "## T\n\na\n"),
        ("<tr><td>one<tr><td>cell a row", "one\n\ncell a row\n"),
        ("<tr><th><tr><td>", ""),
    ],
)
def test_tables(page: str, wanted: str) -> None:
    assert markdown(f"<table>{page}</table>") == wanted


def test_layout_tables_are_unwrapped_and_data_tables_are_not() -> None:
    assert markdown("<table role=presentation><tr><td>a<td>b</table>") == "a\n\nb\n"
    nested = "<table><tr><td>menu<td><table><tr><th>A<tr><td>1</table></table>"
    assert markdown(nested) == "menu\n\n| A |\n| --- |\n| 1 |\n"


def test_spans_that_ask_for_millions_of_cells_get_few() -> None:
    page = "<table>" + ("<tr>" + "<td colspan=999 rowspan=999>x" * 20) * 300 + "</table>"
    assert len(markdown(page)) < 40 * len(page)
    assert markdown(page).count("x") == 6000


def test_lists_deeper_than_readers_follow_keep_their_text() -> None:
    page = "".join(f"<ul><li>w{level}" for level in range(300))
    text = markdown(page)
    found = "".join(words_of(READER.parse(text)))
    assert all(f"w{level}" in found for level in range(300))
    assert max(len(line) - len(line.lstrip()) for line in text.splitlines()) <= 16


def test_headings_are_found_by_the_chunker() -> None:
    text = markdown("<h1>A #1</h1><p># b<h2>C</h2><pre># d</pre><table><tr><th># e</table>")
    assert [block.title for block in chunk_blocks(text) if block.kind == "heading"] == ["A #1", "C"]


# --- what is content ---------------------------------------------------------------------------------------------

FURNITURE = """<html><head><title>T</title><style>.x { color: red }</style></head><body>
<a class="skip-link" href="#c">Skip to the content</a><header><h2>Site</h2><nav><a href="/">Home</a></nav></header>
<div id="cookie-banner"><p>We use cookies.</p><button>Fine</button></div>{0}
<aside><p>Read also our newsletter.</p></aside><footer>All rights reserved</footer><script>document.write("no")</script>
<noscript>no script</noscript><template><p>template</p></template></body></html>"""


@pytest.mark.parametrize(
    "container",
    [
        "<main>{}</main>",
        "<main><nav>crumbs</nav><article>{}</article><p>Other pages</p></main>",
        "<article>{}</article>",
        "<div role=main>{}</div>",
        "<div class='md-content__inner'>{}</div>",
        "<div class='theme-doc-markdown markdown'>{}</div>",
        "<div id=content>{}</div>",
        "<div class=wrap><div class=links><a href=a>one</a> <a href=b>two</a></div><div class=post>{}</div></div>",
        "<table><tr><td><a href=x>menu</a><td>{}</table>",
    ],
)
def test_content_is_found_and_furniture_left_out(container: str) -> None:
    text = "<h1>T <a class=headerlink href='#t'>¶</a></h1><p>This is what the page is about, <b>nothing</b> else.</p>"
    after = "<p><a href=e>Edit this page</a></p><div class='pagination'><a href=n>Next</a></div>"
    page = FURNITURE.replace("{0}", container.replace("{}", text + after))
    assert content(page) == "# T\n\nThis is what the page is about, **nothing** else.\n"


def test_headers_and_notes_inside_the_content_stay() -> None:
    page = (
        "<main><header><h1>T</h1><p>By me</p></header><aside class='admonition'>Mind</aside><aside>ad</aside>"
        "<blockquote>q<footer>who</footer></blockquote><p>text</main>"
    )
    assert content(page) == "# T\n\nBy me\n\n> Mind\n\n> q\n>\n> who\n\ntext\n"


def test_whole_leaves_out_only_what_nobody_sees() -> None:
    text = to_markdown(FURNITURE.replace("{0}", "<p>text</p>"), whole=True).text
    for word in ("Skip", "Site", "Home", "cookies", "Fine", "text", "newsletter", "rights"):
        assert word in text
    for word in ("document.write", "no script", "template", "color"):
        assert word not in text


def test_a_selector_names_the_content() -> None:
    page = "<main>no</main><div class=a>1<div class=a>2</div></div><div class=a>3</div>"
    assert to_markdown(page, selector="div.a").text == "1\n\n2\n\n3\n"
    with pytest.raises(InputError, match="matches nothing"):
        to_markdown(page, selector=".b")


@pytest.mark.parametrize(
    "selector",
    [
        "p",
        "*",
        "body",
        "div.a",
        ".a.b",
        "#x",
        "div#x > p",
        "html body  div p",
        "main p, main > div",
        "div > div > p",
        "div div",
        "[data-k]",
        "[data-k=v]",
        'p[ data-k ~= "w" ]',
        "[data-k^='v']",
        "[data-k$=w]",
        "[data-k*=' ']",
        "[lang|=en]",
        "section .a p.b",
        "section > .a p",
    ],
)
def test_selectors_select_what_cssselect_selects(selector: str) -> None:
    root = fromstring(
        "<html><body><main><p>1</p><div class='a b'><p class=b data-k='v w'>2</p><div id=x><p data-k=v>3</p></div></div></main>"
        "<section lang=en-GB><div class=a><b><p class='b c'>4</p></b></div><p lang=en>5</p></section></body></html>"
    )
    matched = CSSSelector(selector, translator="html")(root)
    wanted = [element for element in matched if not any(parent in matched for parent in element.iterancestors())]
    assert parse(selector).outermost(root) == wanted
    assert matched


@pytest.mark.parametrize(
    "selector",
    ["div[", "p::before", "a:hover", "a + b", "a ~ b", "a,", ", a", "> a", "a >", "[=x]", "a" * 600, "a..b", " "],
)
def test_selectors_that_are_none_are_refused(selector: str) -> None:
    with pytest.raises(InputError, match="no CSS selector"):
        to_markdown("<p>x", selector=selector)


def test_a_container_by_name_with_little_text_is_not_the_content() -> None:
    page = "<article>A short teaser.</article><div class=x><p>" + "The long text that the page is for. " * 9 + "</div>"
    assert content(page).startswith("The long text")


def test_pages_of_documentation_generators() -> None:
    sphinx = """<div class="rst-content"><div role="main"><h1>Start<a class="headerlink" href="#s">¶</a></h1>
<p>See <code class="docutils"><span class="pre">the</span> <span class="pre">gap</span></code> and
<a class="footnote-reference" href="#id2" role="doc-noteref">1</a>.</p>
<div class="highlight-python"><div class="highlight"><table class="highlighttable"><tr><td class="linenos"><pre>1
2</pre></td><td class="code"><pre>import os
os</pre></td></tr></table></div></div></div></div>"""
    assert content(sphinx) == "# Start\n\nSee `the gap` and [1].\n\n```python\nimport os\nos\n```\n"
    asciidoctor = """<div id="content"><div class="admonitionblock note"><table><tr><td class="icon"><i class="fa icon-note"
title="Note"></i></td><td class="content"><div class="paragraph"><p>Care.</p></div></td></tr></table></div>
<pre><code class="language-yaml" data-lang="yaml">a: 1 <b>(1)</b></code></pre></div>"""
    assert content(asciidoctor) == "> **Note**\n>\n> Care.\n\n```yaml\na: 1 (1)\n```\n"
    katex = """<main><p>So <span class="katex"><span class="katex-mathml"><math><mi>e</mi><annotation
encoding="application/x-tex">e^{i\\pi}</annotation></math></span><span class="katex-html" aria-hidden="true">eiπ</span></span>
holds.</p></main>"""
    assert content(katex) == "So $e^{i\\pi}$ holds.\n"
    github = """<article class="markdown-body"><div class="markdown-alert"><p class="markdown-alert-title">Note</p><p>Hey<sup><a
href="#fn-1" data-footnote-ref>1</a></sup></p></div><section class="footnotes"><ol><li id="fn-1">It. <a href="#ref"
class="data-footnote-backref">↩</a></li></ol></section></article>"""
    assert content(github) == "> **Note**\n>\n> Hey[1]\n\n1. It.\n"
    tabs = """<main><ul><li role="tab">npm</li><li role="tab">yarn</li></ul><div role="tabpanel">npm i</div>
<div role="tabpanel" hidden>yarn add</div></main>"""
    assert "yarn add" in content(tabs)


def test_addresses_are_absolute_and_the_base_element_counts() -> None:
    page = "<base href='/other/'><main><a href='a?b#c'>x</a> <img src='//h/i.png' alt=I> <a href='mailto:a@b.c'>m</a></main>"
    assert content(page) == "[x](https://ex.org/other/a?b#c) ![I](https://h/i.png) [m](mailto:a@b.c)\n"
    assert content("<main>a <a href='http://[bad'>x</a> <a href='data:a'>y</a></main>") == "a x y\n"


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<title>Install | Site</title><h1>Install<a class=headerlink href='#i'>¶</a></h1>", "Install"),
        ("<title>Site - Install</title><h1>Install</h1>", "Install"),
        ("<title>A - B</title><h1>Other</h1>", "A - B"),
        ("<title>A – My Site</title><meta property=og:site_name content='My Site'>", "A"),
        ("<meta property=og:title content='From og'>x", "From og"),
        ("<h1>Only <b>heading</b></h1>", "Only heading"),
        ("<!-- x --><title>A</title><style>p {}</style><main>text</main>", "A"),
        ("<svg><title>icon</title></svg>text", ""),
    ],
)
def test_titles(page: str, wanted: str) -> None:
    assert to_markdown(page).title == wanted


# --- what is hidden ----------------------------------------------------------------------------------------------

SECRET = "obey the hidden words here"


@pytest.mark.parametrize(
    "page",
    [
        "<p hidden>{}</p>",
        "<p style='display: none'>{}</p>",
        "<div style='DISPLAY:NONE !important'><p>{}</p></div>",
        "<p style='visibility:hidden'>{}</p>",
        "<p style='opacity: 0.0'>{}</p>",
        "<p style='font-size:0'>{}</p>",
        "<p style='font-size:1px'>{}</p>",
        "<div style='font-size:0'><span style='font-size:2em'>{}</span></div>",
        "<p style='position:absolute; left:-9999px'>{}</p>",
        "<p style='text-indent:-9999em'>{}</p>",
        "<p style='clip: rect(0, 0, 0, 0); position: absolute'>{}</p>",
        "<p style='clip-path: inset(50%)'>{}</p>",
        "<p style='height:1px;width:1px;overflow:hidden'>{}</p>",
        "<p style='transform: scale(0)'>{}</p>",
        "<p style='color:#fff'>{}</p>",
        "<p style='color:rgb(254, 254, 254)'>{}</p>",
        "<p><font color=white>{}</font></p>",
        "<p style='color: transparent'>{}</p>",
        "<div style='background: #123 url()'><p style='background-color:black'><b style='color:#000000'>{}</b></p></div>",
        "<table bgcolor=navy><tr><td style='color:navy'>{}</table>",
        "<style>/* x */ .a.b { display: none }</style><p class='b a'>{}</p>",
        "<style>p { visibility: visible } #k { visibility: hidden }</style><p id=k>{}</p>",
        "<style>.z { display: block } .y { display: none }</style><p class='y z'>{}</p>",
    ],
)
def test_hidden_text_is_told_and_not_written(page: str) -> None:
    converted = to_markdown("<main><p>Seen.</p>\n\n" + page.replace("{}", SECRET) + "<p>Seen too.</p></main>")
    assert SECRET not in converted.text
    assert [hidden.text for hidden in converted.hidden] == [SECRET]
    assert converted.hidden[0].place == "line 3"
    assert converted.hidden[0].kind == "hidden-text"
    assert converted.text == "Seen.\n\nSeen too.\n"


@pytest.mark.parametrize(
    "page",
    [
        "<p style='color:white;background:black'>{}</p>",
        "<link rel=stylesheet href=x.css><p style='color:white'>{}</p>",  # the page may well be dark
        "<style>body > * { background: #000 }</style><p style='color:white'>{}</p>",
        "<div style='visibility:hidden'><p style='visibility:visible'>{}</p></div>",
        "<div style='font-size:0'><p style='font-size:16px'>{}</p></div>",
        "<p style='font-size:80%'>{}</p>",
        "<p style='text-indent:-2em; margin-left: -10px; opacity: .5'>{}</p>",
        "<style>@media print { p { display: none } } .a .b { display: none }</style><p class=b>{}</p>",
        "<style>.y { display: none } p.y { display: block }</style><p class=y>{}</p>",
        "<style>.y { display: none }</style><p class=y style='display:block'>{}</p>",
        "<details><summary>s</summary>{}</details>",
        "<p aria-hidden=true>{}</p>",
        "<p hidden=until-found>{}</p>",
    ],
)
def test_text_that_can_be_seen_is_kept(page: str) -> None:
    converted = to_markdown("<main><p>Seen.</p>" + page.replace("{}", SECRET) + "</main>")
    assert SECRET in converted.text
    assert converted.hidden == ()


def test_hidden_interface_is_left_out_in_silence() -> None:
    page = (
        "<nav hidden>one two three four</nav><div class='modal' style='display:none'>sign in to go on</div>"
        "<div role=tooltip hidden>a tip for the mouse</div><dialog>do you agree with us</dialog>"
        "<span class='sr-only' style='position:absolute;left:-9999px'>opens in a new window</span><p hidden>two words</p>"
        "<!-- a comment of many words --><p>text</p>"
    )
    converted = to_markdown(page)
    assert (converted.text, converted.hidden) == ("text\n", ())


def test_a_hidden_page_class_is_no_excuse() -> None:
    page = "<body class='menu-open has-sidebar'><p style='display:none'>obey the hidden words</p>text"
    assert [hidden.text for hidden in to_markdown(page).hidden] == ["obey the hidden words"]
    long = " ".join(["word"] * 30)
    assert to_markdown(f"<p class=sr-only style='display:none'>{long}</p>text").hidden[0].text == long


def test_at_most_twenty_hidden_texts_are_told_the_longest_first() -> None:
    page = "".join(f"<p hidden>{' '.join(['word'] * count)}</p>\n" for count in range(3, 40))
    told = [len(hidden.text.split()) for hidden in to_markdown(page).hidden]
    assert told == list(range(39, 19, -1))


# --- links -------------------------------------------------------------------------------------------------------


def test_links_of_a_page() -> None:
    page = """<head><link rel=canonical href='/c#x'><meta name=ROBOTS content='NoIndex, follow'></head>
<a href='b#1'>b</a><a href='b#2'>again</a><a href='/z?q=1&amp;r=2'>z</a><a href='mailto:a@b'>m</a><a href='javascript:1'>j</a>
<a href='http://[x'>bad</a><a href='http://h:x/'>bad</a><a href=''>self</a><a>none</a><a href='HTTP://Other.org'>o</a>"""
    assert links(page, "https://ex.org/d/a") == Links(
        ("https://ex.org/d/b", "https://ex.org/z?q=1&r=2", "http://Other.org"), "https://ex.org/c", True, False
    )
    assert links("<meta name=robots content=none>", "http://a/") == Links((), "", True, True)
    assert links("<base href='/s/'><a href=x>", "http://a/b/").urls == ("http://a/s/x",)
    assert links("", "http://a/") == Links(())


# --- untrusted bytes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        ("<p>café “q”".encode(), ""),
        ("\ufeff<p>café “q”".encode(), "latin-1"),  # the mark outweighs the header
        ("<p>café “q”".encode("utf-16"), ""),
        ("<p>café “q”".encode("cp1252"), ""),
        ("<meta charset=ISO-8859-1><p>café “q”".encode("cp1252"), ""),  # browsers read it as Windows-1252
        ("<meta charset=latin1><p>café “q”".encode(), "utf-8"),
        (
            "<?xml version='1.0' encoding='koi8-r'?><html><body>caf&#233; “q”".replace(
                "“q”", "&ldquo;q&rdquo;"
            ).encode(),
            "",
        ),
        ("<meta charset='unicode_escape'><p>café “q”".encode(), "zlib"),
    ],
)
def test_encodings(data: bytes, charset: str) -> None:
    assert to_markdown(data, charset=charset).text == "café “q”\n"


def test_xhtml_sections_and_text_behind_the_end() -> None:
    assert (
        to_markdown("<?xml version='1.0'?><html><body><p>a<![CDATA[b<c &amp;]]></p></body></html>").text
        == "ab\\<c \\&amp;\n"
    )
    assert to_markdown("<title>A</title><meta charset=utf-8><main>text</main>").text == "text\n"  # the head ends there
    assert to_markdown("<p>a</p></body></html>b<p>c").text == "a\n\nb\n\nc\n"
    assert read(b"") == read(b" <!-- x -->") == to_markdown("")


def test_limits_are_told_in_plain_words() -> None:
    for data, said in (
        (b" " * (MAX_BYTES + 1), "larger than 20 MiB"),
        (b"<" * (MAX_TAGS + 1), "more than 1,000,000 tags"),
        (b"<div>" * 5000, "too deeply"),
        (b"\0\1\2" * 100, "binary data"),
    ):
        with pytest.raises(InputError, match=said):
            read(data)
        with pytest.raises(InputError, match=said):
            links(data, "http://a/")


@pytest.mark.parametrize(
    "page",
    [
        "<b><i><span>" * 600 + "deep",
        "<blockquote><ul><li>" * 600 + "deep",
        "<table><tr><td>" * 600 + "deep",
        "<pre><div>" * 900 + "deep",
        "<a href=x><h1>" * 600 + "deep",
    ],
)
def test_deep_pages_do_not_exhaust_the_stack(page: str) -> None:
    assert "deep" in to_markdown(page, whole=True).text


@pytest.mark.parametrize(
    "page",
    [
        "<p>" + "*a _b ~~c [d](e " * 6000,
        "<p>" + "-" * 300_000 + "x",
        "<p>" + "`` ` " * 20_000,
        "<p>" + "<b>x<i>y</b>“</i>" * 6000,
        "<?xml?>" + "<![CDATA[" * 30_000,
        "<style>" + "/*" * 50_000 + ".a{" * 50_000 + "</style><p class=a>x",
        "<style>" + "".join(f".a.b{n}{{display:none}}" for n in range(5000)) + "</style>" + "<p class=a>x" * 3000,
        "<p style='font-size:" + "1" * 200_000 + "x'>x",
        "<div>" * 1000 + "<header>x</header>" * 6000,
        "<p>" + "a<br> " * 20_000,
    ],
)
def test_pages_made_to_take_long_do_not(page: str) -> None:
    """Each of them took minutes with one quadratic step: a test run that hangs is the failure."""
    to_markdown(page)


# --- properties --------------------------------------------------------------------------------------------------

ATOMS = st.sampled_from(
    [
        *"*_`~[]()<>&!\\|#+-=.:\"'$^{}1aZ 0/é漢。“€\n\t",
        *[
            "**",
            "__",
            "``",
            "```",
            "~~~",
            "~~",
            "---",
            "***",
            "1.",
            "1)",
            "](",
            "![",
            "&amp;",
            "<b>",
            "<!--",
            "_bar_",
            "*x*",
            "a_b",
            "\\*",
            "[x](y)",
            ":--",
            "===",
            "http://x.y/_a_",
            "foo",
        ],
        "- ",
        "# ",
        "> ",
        "[a]: b",
        "| a |",
        "--- | ---",
        "    code",
        "\xa0",
        "\u200b",
    ]
)
UNSEEN = (" hidden", " style='display:none'", " style='opacity:0'")
TEXT = st.lists(ATOMS, max_size=6).map("".join)


def element(tag: str, children: list[tuple[str, str]], attributes: str = "") -> tuple[str, str]:
    """HTML, and the text of it that is seen."""
    text = "" if attributes in UNSEEN else "".join(text for _, text in children)
    return f"<{tag}{attributes}>{''.join(page for page, _ in children)}</{tag.split(maxsplit=1)[0]}>", text


def listing(tag: str, items: list[tuple[str, str]]) -> tuple[str, str]:
    return element(tag, [element("li", [item]) for item in items])


def grid(rows: list[list[tuple[str, str]]], head: str) -> tuple[str, str]:
    return element(
        "table",
        [element("tr", [element(head if not at else "td", [cell]) for cell in row]) for at, row in enumerate(rows)],
    )


def larger(children: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
    several = st.lists(children, max_size=3)
    inline = st.sampled_from(["b", "i", "em", "strong", "code", "s", "span", "kbd", "u", "custom-x", "del", "cite"])
    block = st.sampled_from(["p", "div", "section", "blockquote", "pre", "h1", "h3", "dt", "details"])
    unseen = st.sampled_from(UNSEEN)
    return st.one_of(
        st.builds(element, inline, several),
        st.builds(element, block, several),
        st.builds(element, st.just("div"), several, unseen),
        st.builds(lambda inside, url: element("a", inside, f' href="{html.escape(url)}"'), several, TEXT),
        st.builds(listing, st.sampled_from(["ul", "ol"]), several),
        st.builds(
            grid,
            st.lists(st.lists(children, min_size=1, max_size=3), min_size=1, max_size=3),
            st.sampled_from(["td", "th"]),
        ),
        st.just(("<br>", "")),
        st.just(("<hr>", "")),
    )


TREES = st.lists(
    st.recursive(TEXT.map(lambda text: (html.escape(text, quote=False), text)), larger, max_leaves=10), max_size=4
)


@settings(max_examples=400, deadline=None)
@given(TREES)
@example([element("b", [("``\\", "``\\")])])
@example([element("del", [("~", "~"), element("em", [("!$~~~-", "!$~~~-")])])])
@example([element("a", [("]:--x", "]:--x")], ' href="u"')])
@example([element("a", [("x", "x"), ("<br>", ""), ("[a]: b", "[a]: b")], ' href="u"')])
@example([element("a", [element("code", [("x]", "x]"), element("s", [(":y", ":y")])])], ' href="u"')])
@example([element("s", [element("a", [("[", "["), element("b", [("]", "]")])], ' href="u"')])])
@example([element("a", [element("code", [("]:--", "]:--")])], ' href="u"')])
def test_the_words_that_are_seen_come_back_exactly(tree: list[tuple[str, str]]) -> None:
    page = "".join(part for part, _ in tree)
    seen = "".join(text for _, text in tree)
    text = to_markdown(f"<body>{page}</body>", whole=True).text
    assert shown("".join(words_of(READER.parse(text)))) == shown(seen)
    again = READER.render(text)
    assert READER.render(markdown(again)) == READER.render(markdown(READER.render(markdown(again))))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200), TREES.map(lambda tree: "".join(page for page, _ in tree))
    ),
    st.booleans(),
    TEXT,
)
def test_nothing_but_an_input_error_is_ever_raised(page: bytes | str, whole: bool, base: str) -> None:
    for convert in (lambda: to_markdown(page, base=base, whole=whole, charset=base), lambda: links(page, base)):
        try:
            convert()
        except InputError as error:
            assert str(error)


@settings(max_examples=200, deadline=None)
@given(TREES, st.text(alphabet="abc.#[]=*>:()' ,+~", max_size=12))
def test_any_selector_selects_or_is_an_input_error(tree: list[tuple[str, str]], selector: str) -> None:
    page = "".join(part for part, _ in tree)
    try:
        found = to_markdown(page, selector=selector)
    except InputError as error:
        assert "selector" in str(error)
    else:
        assert unicodedata.normalize("NFC", found.text).isprintable() or "\n" in found.text


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_the_same_page_gives_the_same_text_twice(tree: list[tuple[str, str]]) -> None:
    page = "".join(part for part, _ in tree)
    assert to_markdown(page) == to_markdown(page)
