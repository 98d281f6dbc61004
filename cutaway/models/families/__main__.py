"""Print docs/families.md."""

from cutaway.models.families._page import page

if __name__ == "__main__":
    print(page(), end="")
