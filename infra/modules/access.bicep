metadata description = 'The custom role in one subscription, given to the app there'

targetScope = 'subscription'

@description('Object id of the app\'s identity: the output IDENTITY_PRINCIPAL_ID of main.bicep.')
param principalId string

@description('Whether the app gets the role that runs commands on nodes, as root: the one for auditing and fixing them.')
param nodes bool = true

@description('Whether the app gets the role that invokes commands in clusters, for asking kubelets through them.')
param sweep bool = false

@description('Whether that role (also) lets the app ask API servers by itself: it hands out the users\' credentials of clusters.')
param sweepApi bool = false

// actions.json says which call of the app needs which action.
var actions = objectKeys(loadJsonContent('../actions.json'))

// The second role asks clusters for the configuration of their kubelets, and cannot run anything on a node. What it finds
// nodes by is what the first one does.
var sweepActions = union(
  filter(actions, action => endsWith(action, '/read') && action != 'Microsoft.Compute/locations/operations/read'),
  sweep ? objectKeys(loadJsonContent('../actions-sweep.json')) : [],
  sweepApi ? objectKeys(loadJsonContent('../actions-sweep-api.json')) : []
)

resource role 'Microsoft.Authorization/roleDefinitions@2022-04-01' = if (nodes) {
  name: guid(subscription().id, 'aks-kubelet-guard')
  properties: {
    // A role's name is unique in its tenant.
    roleName: 'AKS Kubelet Guard (${subscription().subscriptionId})'
    description: 'Finds AKS clusters and their nodes, and runs commands on the nodes, as root.'
    type: 'CustomRole'
    permissions: [
      {
        actions: actions
        notActions: []
      }
    ]
    assignableScopes: [
      subscription().id
    ]
  }
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (nodes) {
  name: guid(subscription().id, principalId, role.id)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.id
  }
}

resource sweepRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = if (sweep || sweepApi) {
  name: guid(subscription().id, 'aks-kubelet-guard-sweep')
  properties: {
    roleName: 'AKS Kubelet Guard sweep (${subscription().subscriptionId})'
    description: 'Finds AKS clusters and their nodes, and asks the clusters for the configuration of their kubelets.'
    type: 'CustomRole'
    permissions: [
      {
        actions: sweepActions
        notActions: []
      }
    ]
    assignableScopes: [
      subscription().id
    ]
  }
}

resource sweepAssignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (sweep || sweepApi) {
  name: guid(subscription().id, principalId, sweepRole.id)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: sweepRole.id
  }
}
