# The entrypoint opens no connection and starts no installer.
{
  claim,
  contractFile,
  entrypoint,
}:
claim {
  name = "entrypoint-installs-nothing";
  arguments = [
    "${entrypoint}/claw_entrypoint"
    "${contractFile}"
  ];
}
