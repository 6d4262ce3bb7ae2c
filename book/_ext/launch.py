"""Hide the launch buttons until `repository: url` in _config.yml is set.

Without the repository's address they would lead nowhere.
"""


def hide_without_address(app, config) -> None:
    """Remove the launch buttons from the theme's options if no address is set."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)


def setup(app) -> dict:
    """Called by Sphinx."""
    app.connect("config-inited", hide_without_address)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
