"""The line of text under a list that is shown page by page."""


def caption(page: int, *, per_page: int, total: int) -> str:
    """Says which items page number `page` (from 1) shows, as in "Items 11-20 of 57".

    Raises ValueError if there is no such page. An empty list has one page.
    """
    num_pages = max(1, (total + per_page - 1) // per_page)
    if not 1 <= page <= num_pages:
        raise ValueError(f"page must be 1..{num_pages}, got {page}")
    if total == 0:
        return "No items"
    first = (page - 1) * per_page + 1
    last = page * per_page
    if first == last:
        return f"Item {first} of {total}"
    return f"Items {first}-{last} of {total}"
