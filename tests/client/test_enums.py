import pytest
from google.protobuf.descriptor import EnumDescriptor

from exchange import client
from exchange.client import CandleInterval, OrderStatus, RejectReason
from exchange.client import _rpcs as rpcs
from exchange.v1 import account_pb2, admin_pb2, market_data_pb2, trading_pb2, types_pb2

FILES = (types_pb2, trading_pb2, market_data_pb2, account_pb2, admin_pb2)
ENUMS: list[EnumDescriptor] = [enum for file in FILES for enum in file.DESCRIPTOR.enum_types_by_name.values()]


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: str(enum.name))
def test_an_enum_has_the_names_and_numbers_of_the_protocol(enum: EnumDescriptor) -> None:
    python = getattr(client, enum.name)
    numbers = {value.number for value in enum.values}
    assert {int(member) for member in python} == numbers
    if python is not CandleInterval:
        prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.name).lstrip("_") + "_"
        assert {m.name: int(m) for m in python} == {
            value.name.removeprefix(prefix): value.number for value in enum.values
        }


def test_a_number_of_a_newer_exchange_is_kept() -> None:
    status = OrderStatus(99)
    assert status == 99
    assert status.name == "UNRECOGNISED_99"
    assert RejectReason(650).passes


def test_every_call_of_the_protocol_is_known_with_its_types() -> None:
    known = {rpc.path: rpc for rpc in vars(rpcs).values() if isinstance(rpc, rpcs.Rpc)}
    defined = {
        f"/{service.full_name}/{method.name}": method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert known.keys() == defined.keys()
    for path, method in defined.items():
        assert known[path].request.DESCRIPTOR is method.input_type
        assert known[path].response.DESCRIPTOR is method.output_type
