"""Which tools of the bundled worlds have consequences: they change something, or commit the user to something.

A chat asks a person before these run. Kept beside the worlds: the tools' schemas are part of every scenario's hash.
"""

CONSEQUENTIAL: frozenset[str] = frozenset(
    (
        *("book_flight", "book_hotel"),
        *("place_order", "cancel_order", "return_item"),
        *("add_event", "move_event", "send_mail"),
        *("transfer", "pay_bill", "block_card"),
        *("set_heating", "switch_device", "lock_door", "set_timer"),
        *("open_ticket", "assign_ticket", "change_plan"),
        *("reserve_book", "renew_loan", "book_room"),
        *("book_table", "order_dish", "cancel_table"),
    )
)
