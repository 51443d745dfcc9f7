import unittest

from page_caption import caption


class CaptionTest(unittest.TestCase):
    def test_the_first_page(self):
        self.assertEqual(caption(1, per_page=10, total=57), "Items 1-10 of 57")

    def test_one_item_a_page(self):
        self.assertEqual(caption(4, per_page=1, total=9), "Item 4 of 9")

    def test_no_items(self):
        self.assertEqual(caption(1, per_page=10, total=0), "No items")

    def test_a_page_that_does_not_exist(self):
        for page in (-1, 0, 7):
            with self.assertRaises(ValueError):
                caption(page, per_page=10, total=57)

    def test_a_full_last_page(self):
        self.assertEqual(caption(3, per_page=20, total=60), "Items 41-60 of 60")

    def test_the_last_page_ends_with_the_last_item(self):
        self.assertEqual(caption(6, per_page=10, total=57), "Items 51-57 of 57")
        self.assertEqual(caption(2, per_page=25, total=27), "Items 26-27 of 27")

    def test_one_page_that_is_not_full(self):
        self.assertEqual(caption(1, per_page=50, total=8), "Items 1-8 of 8")

    def test_a_single_item_on_the_last_page(self):
        self.assertEqual(caption(3, per_page=10, total=21), "Item 21 of 21")

    def test_a_single_item_in_all(self):
        self.assertEqual(caption(1, per_page=10, total=1), "Item 1 of 1")


if __name__ == "__main__":
    unittest.main()
