"""Things that tests share: inputs by subject, and the assertions that go with them."""
