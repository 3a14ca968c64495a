"""The kubelet's feature gates: which exist, from when, with which default, and which are locked.

Source: Kubernetes' `pkg/features/kube_features.go`, the client-go and logging gates it registers with, and
`component-base/featuregate` for the rules. Gates that were gone before 1.35 are not in the table, so an unknown
name is an error from the measured version (1.36) on only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.kubelet.gotypes import GoError
from shared.kubelet.versions import MEASURED_MINOR

# One gate a line: its name, then one word a change: the minor version, the stage (a alpha, b beta, g GA,
# d deprecated), the default (+ or -), and ! where the gate is locked to it. "x37" is the first version without it.
_TABLE: Final = """
AllAlpha 0a-
AllBeta 0b-
AllowDNSOnlyNodeCSR 0g+ 31d-
AllowInsecureKubeletCertificateSigningRequests 0g+ 31d-
AllowOverwriteTerminationGracePeriodSeconds 0g+ 32d- 35d-!
AllowServiceExternalIPs 0g+
AnyVolumeDataSource 18a- 24b+ 33g+! x37
AuthorizeNodeWithSelectors 31a- 32b+ 34g+! x37
AuthorizePodWebsocketUpgradeCreatePermission 35b+
ChangeContainerStatusOnKubeletRestart 0g+ 35d-
ClearingNominatedNodeNameAfterBinding 34a- 35b+
ClusterTrustBundle 27a- 33b-
ClusterTrustBundleProjection 29a- 33b-
CompositePodGroup 37a-
ContainerCheckpoint 25a- 30b+
ContainerRestartRules 34a- 35b+
ContainerStopSignals 33a-
CPUManagerPolicyAlphaOptions 23a-
CPUManagerPolicyBetaOptions 23b+
CPUManagerPolicyOptions 22a- 23b+ 33g+!
CRIListStreaming 36a-
CrossNamespaceVolumeDataSource 26a-
CSIMigrationPortworx 23a- 25b- 31b+ 33g+! x37
CSIServiceAccountTokenSecrets 35b+ 36g+!
CSIVolumeHealth 21a-
CustomCPUCFSQuotaPeriod 12a- 36g+
DeploymentReplicaSetTerminatingReplicas 33a- 35b+
DisableAllocatorDualWrite 31a- 33b- 34g+ 35g+!
DisableCPUQuotaWithExclusiveCPUs 33b+ 36d+ 37d+!
DisableNodeKubeProxyVersion 29a- 31d- 33d+ 36d+!
DRAAdminAccess 32a- 34b+ 36g+!
DRAConsumableCapacity 34a- 36b+
DRADeviceBindingConditions 34a- 36b+
DRADeviceTaintRules 35a- 36b-
DRADeviceTaints 33a- 36b+
DRAExtendedResource 34a- 36b+ 37g+!
DRAListTypeAttributes 36a-
DRANodeAllocatableResources 36a-
DRAPartitionableDevices 33a- 36b+
DRAPrioritizedList 33a- 34b+ 36g+
DRAResourceClaimDeviceStatus 32a- 33b+
DRAResourceClaimGranularStatusAuthorization 36b+
DRAResourcePoolStatus 36a-
DRASchedulerFilterTimeout 34b+
DRAWorkloadResourceClaims 36a-
DynamicResourceAllocation 26a- 32b- 34g+ 35g+!
EnvFiles 34a- 35b+
EventedPLEG 26a-
ExecProbeTimeout 20g+ 35g+!
ExtendWebSocketsToKubelet 36b+
ExternalServiceAccountTokenSigner 32a- 34b+ 36g+!
GangScheduling 35a- x37
GenericWorkload 35a-
GitRepoVolumeDriver 0g+ 33d- 36d-!
GracefulNodeShutdown 20a- 21b+
GracefulNodeShutdownBasedOnPodPriority 23a- 24b+
HonorPVReclaimPolicy 23a- 31b+ 33g+! x37
HostnameOverride 34a- 35b+
HPAConfigurableTolerance 33a- 35b+
HPAGeneration 37b+
HPAScaleToZero 16a- 37b+
HugepageAwareEviction 37b+
ImageMaximumGCAge 29a- 30b+ 35g+!
ImageVolume 31a- 33b- 35b+ 36g+!
ImageVolumeWithDigest 35a-
InPlacePodLevelResourcesVerticalScaling 35a- 36b+
InPlacePodVerticalScaling 27a- 33b+ 35g+!
InPlacePodVerticalScalingAllocatedStatus 32a- 33d- x37
InPlacePodVerticalScalingExclusiveCPUs 32a-
InPlacePodVerticalScalingExclusiveMemory 34a-
InPlacePodVerticalScalingInitContainers 36b+
InTreePluginPortworxUnregister 23a- x37
JobBackoffLimitPerIndex 28a- 29b+ 33g+! x37
JobManagedBy 30a- 32b+ 35g+!
JobPodReplacementPolicy 28a- 29b+ 34g+! x37
JobSuccessPolicy 30a- 31b+ 33g+! x37
KubeletCgroupDriverFromCRI 28a- 31b+ 34g+!
KubeletCrashLoopBackOffMax 32a- 35b+
KubeletEnsureSecretPulledImages 33a- 35b+
KubeletFineGrainedAuthz 32a- 33b+ 36g+!
KubeletInUserNamespace 22a-
KubeletPodResourcesDynamicResources 27a- 34b+ 36g+!
KubeletPodResourcesGet 27a- 34b+ 36g+!
KubeletPodResourcesListUseActivePods 0g- 34d+
KubeletPSI 33a- 34b+ 36g+!
KubeletRegistrationGetOnExistsOnly 0g+ 32d-
KubeletSeparateDiskGC 29a- 31b+
KubeletServiceAccountTokenForCredentialProviders 33a- 34b+
KubeletTracing 25a- 27b+ 34g+!
KubeProxyIPVS 0g+ 37d+
LocalStorageCapacityIsolationFSQuotaMonitoring 15a- 31b-
LogarithmicScaleDown 21a- 22b+ 31g+! x37
MatchLabelKeysInPodAffinity 29a- 31b+ 33g+!
MatchLabelKeysInPodTopologySpread 25a- 27b+
MatchLabelKeysInPodTopologySpreadSelectorMerge 34b+
MaxUnavailableStatefulSet 24a- 35b-
MemoryManager 21a- 22b+ 32g+! x37
MemoryQoS 22a-
MultiCIDRServiceAllocator 27a- 31b- 33g+ 34g+!
MutableCSINodeAllocatableCount 33a- 34b- 35b+ 36g+!
MutablePodResourcesForSuspendedJobs 35a- 36b+
MutablePVNodeAffinity 35a-
MutableSchedulingDirectivesForSuspendedJobs 35a- 36b+
NFTablesProxyMode 29a- 31b+ 33g+!
NodeControllerLeaseCircuitBreaker 37b+
NodeDeclaredFeatures 35a- 36b+ 37g+!
NodeInclusionPolicyInPodTopologySpread 25a- 26b+ 33g+!
NodeLogQuery 27a- 30b- 36g+!
NodeSwap 22a- 28b- 30b+ 34g+!
NominatedNodeNameForExpectation 34a- 35b+
OpportunisticBatching 35b+
OrderedNamespaceDeletion 30b- 33b+ 34g+! x37
PersistentVolumeClaimUnusedSinceTime 36a-
PLEGOnDemandRelist 36b+
PodAndContainerStatsFromCRI 23a-
PodCertificateRequest 34a- 35b-
PodDeletionCost 21a- 22b+
PodGroupPreemptionPolicy 37a-
PodLevelResourceManagers 36a-
PodLevelResources 32a- 34b+
PodLifecycleSleepAction 29a- 30b+ 34g+! x37
PodLifecycleSleepActionAllowZero 32a- 33b+ 34g+! x37
PodLogsQuerySplitStreams 32a-
PodObservedGenerationTracking 33a- 34b+ 35g+!
PodReadyToStartContainersCondition 28a- 29b+
PodsAPI 36a-
PodSchedulingReadiness 26a- 27b+ 30g+!
PodTopologyLabelsAdmission 33a- 35b+
PortForwardWebsockets 30a- 31b+
PreferSameTrafficDistribution 33a- 34b+ 35g+!
PreventStaticPodAPIReferences 34b+
ProcMountType 12a- 31b- 33b+ 36g+!
QOSReserved 11a-
RecoverVolumeExpansionFailure 23a- 32b+ 34g+!
RecursiveReadOnlyMounts 30a- 31b+ 33g+!
ReduceDefaultCrashLoopBackOffDecay 33a-
RelaxedDNSSearchValidation 32a- 33b+ 34g+! x37
RelaxedEnvironmentVariableValidation 30a- 32b+ 34g+!
RelaxedServiceNameValidation 34a- 36b+ 37g+!
ReloadKubeletClientCAFile 36b+
ReloadKubeletServerCertificateFile 31b+
ResourceHealthStatus 31a- 36b+
ResourceHealthStatusMessage 36b+
RestartAllContainersOnContainerExits 35a- 36b+
RotateKubeletServerCertificate 7a- 12b+
RuntimeClassInImageCriAPI 29a-
SchedulerAsyncAPICalls 34b-
SchedulerAsyncPreemption 32a- 33b+
SchedulerPopFromBackoffQ 33b+
SchedulerQueueingHints 28b- 32b+ 34g+! x37
SELinuxChangePolicy 32a- 33b+ 36g+!
SELinuxMount 30a- 33b- 37g+
SELinuxMountReadWriteOncePod 25a- 27b- 28b+ 36g+!
SeparateTaintEvictionController 29b+ 34g+!
ServiceAccountNodeAudienceRestriction 32b- 33b+
ServiceAccountTokenJTI 29a- 30b+ 32g+!
ServiceAccountTokenNodeBinding 29a- 31b+ 33g+!
ServiceAccountTokenNodeBindingValidation 29a- 30b+ 32g+!
ServiceAccountTokenPodNodeInfo 29a- 30b+ 32g+!
ServiceCIDRStatusFieldWiping 0g- 36d+
ServiceTrafficDistribution 30a- 31b+ 33g+! x37
SidecarContainers 28a- 29b+ 33g+! x37
StaleControllerConsistencyDaemonSet 36b+
StaleControllerConsistencyHPA 37b+
StaleControllerConsistencyJob 36b+
StaleControllerConsistencyReplicaSet 36b+
StaleControllerConsistencyStatefulSet 36b+
StatefulSetSemanticRevisionComparison 0b+
StorageCapacityScoring 33a- 37b+
StorageNamespaceIndex 30b+ 33d+
StorageVersionMigrator 30a- 35b-
StreamingCollectionEncodingToJSON 33b+ 34g+! x37
StreamingCollectionEncodingToProtobuf 33b+ 34g+! x37
StrictIPCIDRValidation 33a- 36b+
SupplementalGroupsPolicy 31a- 33b+ 35g+!
SystemdWatchdog 32b+ 35g+!
TaintTolerationComparisonOperators 35a-
TopologyAwareHints 21a- 23b- 24b+ 33g+! x37
TopologyAwareWorkloadScheduling 36a-
TopologyManagerPolicyAlphaOptions 26a-
TopologyManagerPolicyBetaOptions 26b- 28b+
TopologyManagerPolicyOptions 26a- 28b+ 32g+
TranslateStreamCloseWebsocketRequests 29a- 30b+
UserNamespacesHostNetworkSupport 35a-
UserNamespacesSupport 25a- 30b- 33b+ 36g+!
VolumeAttributesClass 29a- 31b- 34g+ 36g+!
VolumeLimitScaling 35a-
WinDSR 14a- 33b+ 34g+!
WindowsCPUAndMemoryAffinity 32a-
WindowsGracefulNodeShutdown 32a- 34b+
WindowsHostNetwork 26a- 33d-
WinOverlay 14a- 20b+ 34g+!
WorkloadWithJob 36a-
CRDObservedGenerationTracking 35b- 36b+
CRDValidationRatcheting 28a- 30b+ 33g+!
CustomResourceFieldSelectors 30a- 31b+ 32g+!
AggregatedDiscoveryRemoveBetaType 0g- 33d+ 35d+!
AllowParsingUserUIDFromCertAuth 33b+
AllowUnsafeMalformedObjectDeletion 32a-
AnonymousAuthConfigurableEndpoints 31a- 32b+ 34g+! x37
APIResponseCompression 8a- 16b+
APIServerIdentity 20a- 26b+
APIServerTracing 22a- 27b+ 34g+! x37
APIServingWithRoutine 30a-
AuthorizeWithSelectors 31a- 32b+ 34g+! x37
BtreeWatchCache 32b+ 33g+! x37
CBORServingAndStorage 32a-
ConcurrentWatchObjectDecode 31b-
ConsistentListFromCache 28a- 31b+ 34g+! x37
ConsistentListFromCacheSkipTimeoutFallback 37a-
ConstrainedImpersonation 35a- 36b+
CoordinatedLeaderElection 31a- 33b-
DeclarativeValidation 33b+ 36g+!
DeclarativeValidationBeta 36b+
DeclarativeValidationTakeover 33b- 36d- 37d-!
DetectCacheInconsistency 34b+
EtcdRangeStream 37b-
KMSv1 0g+ 28d+ 29d-
ListFromCacheSnapshot 33a- 34b+
ManifestBasedAdmissionControlConfig 36a-
MutatingAdmissionPolicy 32a- 34b- 36g+
OpenAPIEnums 23a- 24b+
RemoteRequestHeaderUID 32a- 33b+
ResilientWatchCacheInitialization 31b+ 34g+! x37
RetryGenerateName 30a- 31b+ 32g+! x37
SeparateCacheWatchRPC 28b+ 33d- 36d-!
ShardedListAndWatch 36a-
SizeBasedListCostEstimate 34b+
StorageVersionAPI 20a-
StorageVersionHash 14a- 15b+
StructuredAuthenticationConfiguration 29a- 30b+ 34g+! x37
StructuredAuthenticationConfigurationEgressSelector 34b+
StructuredAuthenticationConfigurationJWKSMetrics 35b+
StructuredAuthorizationConfiguration 29a- 30b+ 32g+! x37
TokenRequestServiceAccountUIDValidation 34b+
UnauthenticatedHTTP2DOSMitigation 25b- 29b+
UnknownVersionInteroperabilityProxy 28a- 36b+
WatchCacheInitializationPostStartHook 31b- 36b+ 37g+!
WatchFromStorageWithoutResourceVersion 27b- 33d-! x37
WatchList 27a- 32b+ 33b- 34b+
WatchListCompression 37b-
WebhookRoundTripLoadBalancing 37b+
CloudControllerManagerWatchBasedRoutesReconciliation 35a-
CloudControllerManagerWebhook 27a-
ComponentFlagz 32a- 36b+
ComponentStatusz 32a- 36b+
ContextualLogging 24a- 30b+
LoggingAlphaOptions 24a-
LoggingBetaOptions 24b+
AtomicFIFO 36b+
ClientsAllowCBOR 32a-
ClientsPreferCBOR 32a-
InformerResourceVersion 30a- 35b+
InOrderInformers 33b+
InOrderInformersBatchProcess 35b+
UnlockWhileProcessingFIFO 36b+
WatchListClient 30b- 35b+
"""

# What a gate needs to be on before it may be on; checked from 1.35 on (defaultKubernetesFeatureGateDependencies).
_DEPENDENCIES: Final[Mapping[str, tuple[str, ...]]] = {
    "ClusterTrustBundleProjection": ("ClusterTrustBundle",),
    "DRAAdminAccess": ("DynamicResourceAllocation",),
    "DRAConsumableCapacity": ("DynamicResourceAllocation",),
    "DRADeviceBindingConditions": ("DynamicResourceAllocation", "DRAResourceClaimDeviceStatus"),
    "DRADeviceTaintRules": ("DRADeviceTaints",),
    "DRADeviceTaints": ("DynamicResourceAllocation",),
    "DRAExtendedResource": ("DynamicResourceAllocation",),
    "DRAListTypeAttributes": ("DynamicResourceAllocation",),
    "DRANodeAllocatableResources": ("DynamicResourceAllocation",),
    "DRAPartitionableDevices": ("DynamicResourceAllocation",),
    "DRAPrioritizedList": ("DynamicResourceAllocation",),
    "DRAResourceClaimGranularStatusAuthorization": (
        "DynamicResourceAllocation",
        "DRAResourceClaimDeviceStatus",
    ),
    "DRAResourcePoolStatus": ("DynamicResourceAllocation",),
    "DRASchedulerFilterTimeout": ("DynamicResourceAllocation",),
    "DRAWorkloadResourceClaims": ("DynamicResourceAllocation", "GenericWorkload"),
    "DisableAllocatorDualWrite": ("MultiCIDRServiceAllocator",),
    "ExtendWebSocketsToKubelet": ("NodeDeclaredFeatures",),
    "GracefulNodeShutdownBasedOnPodPriority": ("GracefulNodeShutdown",),
    "ImageVolumeWithDigest": ("ImageVolume",),
    "InPlacePodLevelResourcesVerticalScaling": (
        "InPlacePodVerticalScaling",
        "PodLevelResources",
        "NodeDeclaredFeatures",
    ),
    "InPlacePodVerticalScalingExclusiveCPUs": ("InPlacePodVerticalScaling",),
    "InPlacePodVerticalScalingExclusiveMemory": ("InPlacePodVerticalScaling",),
    "InPlacePodVerticalScalingInitContainers": ("InPlacePodVerticalScaling", "NodeDeclaredFeatures"),
    "MatchLabelKeysInPodTopologySpreadSelectorMerge": ("MatchLabelKeysInPodTopologySpread",),
    "PodLevelResourceManagers": ("PodLevelResources",),
    "ProcMountType": ("UserNamespacesSupport",),
    "ResourceHealthStatus": ("DynamicResourceAllocation",),
    "ResourceHealthStatusMessage": ("ResourceHealthStatus",),
    "RestartAllContainersOnContainerExits": ("ContainerRestartRules", "NodeDeclaredFeatures"),
    "ServiceAccountTokenNodeBinding": ("ServiceAccountTokenNodeBindingValidation",),
    "StaleControllerConsistencyDaemonSet": ("AtomicFIFO",),
    "StaleControllerConsistencyJob": ("AtomicFIFO",),
    "StaleControllerConsistencyReplicaSet": ("AtomicFIFO",),
    "StaleControllerConsistencyStatefulSet": ("AtomicFIFO",),
    "StorageVersionAPI": ("APIServerIdentity",),
    "DeclarativeValidationBeta": ("DeclarativeValidation",),
    "DeclarativeValidationTakeover": ("DeclarativeValidation",),
    "TopologyAwareWorkloadScheduling": ("GenericWorkload",),
    "UnknownVersionInteroperabilityProxy": ("APIServerIdentity",),
    "UserNamespacesHostNetworkSupport": ("UserNamespacesSupport", "NodeDeclaredFeatures"),
    "WindowsGracefulNodeShutdown": ("GracefulNodeShutdown",),
    "WorkloadWithJob": ("GenericWorkload",),
}
_DEPENDENCIES_SINCE: Final = 35


@dataclass(frozen=True, slots=True)
class GateSpec:
    """A gate in one Kubernetes version. `stage` is one of "a", "b", "g", "d"."""

    stage: str
    default: bool
    locked: bool


def _parse_table(table: str) -> dict[str, tuple[tuple[int, GateSpec | None], ...]]:
    gates: dict[str, tuple[tuple[int, GateSpec | None], ...]] = {}
    for line in table.split("\n"):
        name, _, rest = line.partition(" ")
        changes: list[tuple[int, GateSpec | None]] = []
        for word in rest.split():
            if word.startswith("x"):
                changes.append((int(word[1:]), None))
                continue
            locked = word.endswith("!")
            core = word.rstrip("!")
            changes.append((int(core[:-2]), GateSpec(core[-2], core[-1] == "+", locked)))
        if name:
            gates[name] = tuple(changes)
    return gates


_GATES: Final = _parse_table(_TABLE)


def gate_spec(name: str, minor: int) -> GateSpec | None:
    """The gate as Kubernetes 1.`minor` has it; None where the table has no such gate in that version."""
    found: GateSpec | None = None
    for since, spec in _GATES.get(name, ()):
        if since <= minor:
            found = spec
    return found


class FeatureGates:
    """The gates of one kubelet: what was set, resolved against one version's table."""

    def __init__(self, minor: int, settings: Mapping[str, bool]) -> None:
        """Raises GoError where the kubelet refuses a setting: unknown, locked, or lacking a dependency."""
        self._minor = minor
        self._enabled = dict(settings)
        for name, value in settings.items():
            spec = gate_spec(name, minor)
            if spec is None:
                if minor >= MEASURED_MINOR or name in _GATES:
                    raise GoError(f"unrecognized feature gate: {name}")
            elif spec.locked and spec.default != value:
                raise GoError(
                    f"cannot set feature gate {name} to {_word(value)}, feature is locked to {_word(spec.default)}"
                )
        if minor >= _DEPENDENCIES_SINCE:
            self._check_dependencies()

    def enabled(self, name: str) -> bool:
        """Whether the gate is on: as set, else by AllAlpha or AllBeta, else its default."""
        if name in self._enabled:
            return self._enabled[name]
        spec = gate_spec(name, self._minor)
        if spec is None:
            return False
        group = {"a": "AllAlpha", "b": "AllBeta"}.get(spec.stage)
        if group is not None and group in self._enabled and name not in ("AllAlpha", "AllBeta"):
            return self._enabled[group]
        return spec.default

    def _check_dependencies(self) -> None:
        if not self._enabled:
            return  # defaults agree with each other
        for name, needs in _DEPENDENCIES.items():
            if self.enabled(name):
                off = [need for need in needs if not self.enabled(need)]
                if off:
                    raise GoError(f"{name} is enabled, but depends on features that are disabled: [{' '.join(off)}]")


def _word(value: bool) -> str:
    return "true" if value else "false"
