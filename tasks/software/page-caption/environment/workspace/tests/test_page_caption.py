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
        with self.assertRaises(ValueError):
            caption(7, per_page=10, total=57)


if __name__ == "__main__":
    unittest.main()
