"""The Azure clouds: which names go with which Resource Manager.

Sources: the Azure SDK's own tables (azure-mgmt-core's `get_arm_endpoints`, azure-identity's `AzureAuthorityHosts`),
which a test holds this one against, and `az cloud list` for the suffixes of storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

STORAGE_SCOPE = "https://storage.azure.com/.default"
"""What tokens for a storage account are asked for, the same in every cloud ("Authorize with Microsoft Entra ID", Azure
Storage REST documentation)."""

CLUSTER_SCOPE = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
"""AKS's server application, which a cluster with Entra ID takes tokens for: the same in every tenant and cloud
(kubelogin's documentation, "Using kubelogin with AKS")."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud.

    `name` is what `az cloud list` and a template's `environment().name` call it, `resource_manager` the host of its
    Resource Manager, `audience` whom a token for that is for, `authority` where one signs in (both https URLs without
    a slash at the end), and `storage` what the host names of its storage services end with.
    """

    name: str
    resource_manager: str
    audience: str
    authority: str
    storage: str

    def table_service(self, account: str) -> str:
        """The URL of a storage account's table service."""
        return f"https://{account}.table.{self.storage}"


PUBLIC = Cloud(
    name="AzureCloud",
    resource_manager="management.azure.com",
    audience="https://management.azure.com",
    authority="https://login.microsoftonline.com",
    storage="core.windows.net",
)
US_GOVERNMENT = Cloud(
    name="AzureUSGovernment",
    resource_manager="management.usgovcloudapi.net",
    # The host without `core` is taken as well; this is the one that the SDK asks for.
    audience="https://management.core.usgovcloudapi.net",
    authority="https://login.microsoftonline.us",
    storage="core.usgovcloudapi.net",
)
CHINA = Cloud(
    name="AzureChinaCloud",
    resource_manager="management.chinacloudapi.cn",
    audience="https://management.chinacloudapi.cn",
    authority="https://login.chinacloudapi.cn",
    storage="core.chinacloudapi.cn",
)

CLOUDS: tuple[Cloud, ...] = (PUBLIC, US_GOVERNMENT, CHINA)


def cloud_of(endpoint: str) -> Cloud | None:
    """The cloud of a Resource Manager by its URL, None where it is none of these (such as a sandbox's)."""
    host = urlsplit(endpoint).hostname
    return next((cloud for cloud in CLOUDS if cloud.resource_manager == host), None)
