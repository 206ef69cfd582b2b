"""Navigation and chrome; nothing else. ``streamlit run app.py`` starts the dashboard and a worker for each device."""

import streamlit as st

from pruneviz.basics.errors import PrunevizError
from pruneviz.ui import server
from pruneviz.ui.text import plain

PAGES = {
    "home": ("Home", "home"),
    "tour": ("Tour", "explore"),
    "run": ("Run", "play_circle"),
    "compare": ("Compare", "view_column"),
    "saliency": ("Saliency", "bar_chart"),
    "spectra": ("Kronecker spectra", "show_chart"),
    "jacobians": ("Jacobians", "stacked_line_chart"),
    "curves": ("Curves", "trending_down"),
    "diff": ("Diff two files", "difference"),
    "methods": ("Methods", "menu_book"),
    "papers": ("Papers", "fact_check"),
    "runs": ("Runs", "list_alt"),
}

if __name__ == "__main__":  # one session's run of the script
    st.set_page_config(page_title="PruneViz", page_icon=server.ICON, layout="wide", initial_sidebar_state=220)
    st.html(server.STYLE)
    page = st.navigation(
        [
            st.Page(f"pages/{name}.py", title=title, icon=f":material/{icon}:", url_path=name, default=name == "home")
            for name, (title, icon) in PAGES.items()
        ]
    )
    try:
        page.run()
    except PrunevizError as error:
        st.error(plain(error), icon=":material/error:")
else:  # the server imports this module once
    app = st.App(__file__, lifespan=server.lifespan, middleware=server.middleware)
