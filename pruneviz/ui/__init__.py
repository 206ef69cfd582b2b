"""What the pages share: the only package that imports streamlit. It never imports torch."""
