"""Which tools of the bundled worlds have consequences: they change something, or commit the user to something.

A chat asks a person before these run. Kept beside the worlds: the tools' schemas are part of every scenario's hash.
"""

CONSEQUENTIAL: frozenset[str] = frozenset(
    (
        *("book_flight", "cancel_flight"),
        *("order_product", "return_product"),
        *("mail_event", "delete_event"),
        *("pay_account", "close_account"),
        *("start_device", "stop_device"),
        *("assign_ticket", "close_ticket"),
        *("reserve_book", "return_book"),
        *("book_table", "cancel_table"),
    )
)
