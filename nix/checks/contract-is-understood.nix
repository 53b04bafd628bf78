# Every key of the contract has a reader, and the entrypoint accepts what it reads.
{
  claim,
  contractFile,
  entrypoint,
}:
claim {
  name = "contract-is-understood";
  arguments = [
    "${contractFile}"
    "${entrypoint}"
  ];
}
