"""The WebSocket with an access token: its owner's mailboxes and nobody else's, while the login stands."""

import asyncio

from tests.contract.accounts import register
from tests.contract.test_ws import heard, say, session
from tests.contract.transcript import inject
from tests.running import Server


async def test_the_owner_subscribes_to_any_of_his_mailboxes_with_one_token(server: Server) -> None:
    owner = await register(server)
    boxes = [await owner.mailbox() for _ in range(2)]
    await inject(server, boxes[1], subject="missed")
    async with session(server, additional_headers=owner.auth) as ws:
        for box in boxes:
            await say(ws, type="subscribe", mailboxId=box.id, after=0)
            frame = await heard(ws)
            assert (frame["type"], frame["mailboxId"]) == ("subscribed", box.id)
        missed = await heard(ws, "new_mail")
        assert (missed["mailboxId"], missed["seq"]) == (boxes[1].id, 1)
        await server.deliver(boxes[0], subject="live")
        live = await heard(ws, "new_mail")
        assert (live["mailboxId"], live["data"]["subject"]) == (boxes[0].id, "live")


async def test_a_foreign_mailbox_is_answered_like_an_unknown_one(server: Server) -> None:
    owner, stranger = await register(server), await register(server)
    box, guest = await owner.mailbox(), await server.mailbox()
    unknown = box.id[:-6] + "000000"
    async with session(server) as ws:
        for mailbox_id in (box.id, guest.id, unknown):
            await say(ws, type="subscribe", mailboxId=mailbox_id, token=stranger.token)
            frame = await heard(ws)
            assert (frame["type"], frame["error"]) == ("error", "mailbox_not_found")
        await say(ws, type="subscribe", mailboxId=box.id, token=stranger.token[:-4] + "AAAA")
        assert (await heard(ws))["error"] == "token_invalid"


async def test_logging_out_ends_the_subscriptions_before_more_is_told(server: Server) -> None:
    owner = await register(server)
    box = await owner.mailbox()
    async with session(server, additional_headers=owner.auth) as ws:
        await say(ws, type="subscribe", mailboxId=box.id)
        await heard(ws, "subscribed")
        assert (await owner.ask("POST", "/v1/auth/logout")).status == 204
        frame = await heard(ws)
        assert (frame["type"], frame["error"]) == ("unsubscribed", "token_invalid")
        await server.deliver(box, subject="not any more")
        await say(ws, type="unsubscribe", mailboxId=box.id)
        assert (await asyncio.wait_for(heard(ws), 60))["type"] == "unsubscribed"
